"""The single layers of the language. Every setting may be a choice, or depend on choices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from ofa_profiler.errors import UsageError
from ofa_profiler.networks import layers
from ofa_profiler.networks.blocks import make_divisible
from ofa_profiler.networks.layers.activations import get_activation
from ofa_profiler.networks.layers.any_conv import Margins
from ofa_profiler.networks.layers.conv import strided
from ofa_profiler.networks.layers.window import counted
from ofa_profiler.networks.tensors import Shape
from ofa_profiler.spaces.language.draft import Draft
from ofa_profiler.spaces.language.parts import Part
from ofa_profiler.spaces.language.values import Setting, value_at


class _Read(NamedTuple):
    """The settings of a layer as they are chosen. Raises `UsageError` for wrong ones."""

    word: str
    setting: Setting

    def whole(self, what: str, value: Any) -> int:
        found = value_at(value, self.setting)
        if isinstance(found, float) and found.is_integer():
            found = int(found)
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            hint = f"; rounded({value!r:.60}) is one" if isinstance(found, float) else ""
            raise UsageError(f"the {what} of {self.word} must be a whole number from 1 on, not {found!r:.60}{hint}")
        return found

    def odd(self, what: str, value: Any) -> int:
        if (found := self.whole(what, value)) % 2 == 0:
            raise UsageError(f"the {what} of {self.word} must be odd, not {found}")
        return found

    def activation(self, value: Any) -> str:
        found = value_at(value, self.setting) or ""
        if not isinstance(found, str):
            raise UsageError(f"the activation of {self.word} must be a name, like 'relu', not {found!r:.60}")
        return get_activation(found).name


@dataclass(frozen=True, eq=False)
class Single(Part):
    """One layer, which is an op unless it is inside of one. `settings` has all that may be chosen."""

    settings: tuple[Any, ...] = ()
    is_op = True
    needs_map = True

    def values(self) -> tuple[Any, ...]:
        return self.settings

    def write(self, draft: Draft, tensor: str, setting: Setting) -> str:
        shape = draft.shapes[tensor]
        if self.needs_map and len(shape) != 3:
            raise UsageError(f"{self.word} takes a map, but gets a vector of {shape[0]} values")
        return self.add(draft, tensor, shape, _Read(self.word, replace(setting, shape=shape)))

    def add(self, draft: Draft, tensor: str, shape: Shape, read: _Read) -> str:
        """Add the layer after `tensor`, which has this shape, and return its output. Raises `UsageError`."""
        raise NotImplementedError


class _Conv(Single):
    word = "conv"

    def add(self, draft: Draft, tensor: str, shape: Shape, read: _Read) -> str:
        width, kernel, stride, activation, groups = self.settings
        channels, outputs = shape[-1], read.whole("width", width)
        size, step, count = read.odd("kernel", kernel), read.whole("stride", stride), read.whole("groups", groups)
        if channels % count or outputs % count:
            raise UsageError(f"conv cannot divide {channels} channels into {outputs} by {count} groups")
        active = read.activation(activation)
        draft.say(self.word, outputs, f"k{size}", _other("s", step), _other("g", count), active)
        make = partial(layers.Conv, in_channels=channels, out_channels=outputs, kernel_size=size, stride=step)
        return draft.add(self.word, partial(make, groups=count, activation=active), tensor)


class _Depthwise(Single):
    word = "depthwise"

    def add(self, draft: Draft, tensor: str, shape: Shape, read: _Read) -> str:
        kernel, stride, activation = self.settings
        size, step, active = read.odd("kernel", kernel), read.whole("stride", stride), read.activation(activation)
        channels = shape[-1]
        draft.say(self.word, f"k{size}", _other("s", step), active)
        make = partial(layers.Conv, in_channels=channels, out_channels=channels, groups=channels)
        return draft.add(self.word, partial(make, kernel_size=size, stride=step, activation=active), tensor)


class _SqueezeExcite(Single):
    word = "squeeze_excite"

    def add(self, draft: Draft, tensor: str, shape: Shape, read: _Read) -> str:
        middle = make_divisible(shape[-1] // read.whole("reduction", self.settings[0]))
        draft.say(self.word, middle)
        return draft.add(self.word, partial(layers.SqueezeExcite, channels=shape[-1], mid_channels=middle), tensor)


class _Activation(Single):
    word = "activation"
    needs_map = False

    def add(self, draft: Draft, tensor: str, shape: Shape, read: _Read) -> str:  # noqa: ARG002
        if not (active := read.activation(self.settings[0])):
            return tensor
        draft.say(self.word, active)
        return draft.add(self.word, partial(layers.Activate, activation=active), tensor)


class _Pool(Single):
    """Pooling in windows. Its padding is that of torch for odd kernels, and at the end of the map for even ones."""

    def _window(self, shape: Shape, read: _Read) -> tuple[int, int, Margins]:
        kernel, stride = (read.whole(*each) for each in zip(("kernel", "stride"), self.settings, strict=True))
        before = (kernel - 1) // 2
        after = max((strided(shape[0], stride) - 1) * stride + kernel - before - shape[0], 0)
        return kernel, stride, (before, before, after, after)


class _MaxPool(_Pool):
    word = "max_pool"

    def add(self, draft: Draft, tensor: str, shape: Shape, read: _Read) -> str:
        kernel, stride, pads = self._window(shape, read)
        draft.say(self.word, f"k{kernel}", _other("s", stride))
        make = partial(layers.WindowMax, kernel=(kernel, kernel), strides=(stride, stride), pads=pads)
        return draft.add(self.word, make, tensor)


class _AveragePool(_Pool):
    word = "average_pool"

    def add(self, draft: Draft, tensor: str, shape: Shape, read: _Read) -> str:
        kernel, stride, pads = self._window(shape, read)
        draft.say(self.word, f"k{kernel}", _other("s", stride))
        rows = counted(shape[0], kernel, stride, pads[0], strided(shape[0], stride))
        inside = rows if set(rows) != {kernel} else ()
        make = partial(layers.WindowMean, kernel=(kernel, kernel), strides=(stride, stride), pads=pads)
        return draft.add(self.word, partial(make, rows=inside, columns=inside), tensor)


class _GlobalPool(Single):
    word = "global_pool"

    def add(self, draft: Draft, tensor: str, shape: Shape, read: _Read) -> str:  # noqa: ARG002
        draft.say(self.word)
        return draft.add(self.word, layers.GlobalPool, tensor)


class _Linear(Single):
    word = "linear"
    needs_map = False

    def add(self, draft: Draft, tensor: str, shape: Shape, read: _Read) -> str:
        width, activation = self.settings
        values = 1
        for size in shape:
            values *= size
        outputs = read.setting.classes if width is None else read.whole("width", width)
        active = read.activation(activation)
        draft.say(self.word, outputs, active)
        output = draft.add(self.word, partial(layers.Linear, in_features=values, out_features=outputs), tensor)
        return draft.add("activation", partial(layers.Activate, activation=active), output) if active else output


def _other(letter: str, value: int) -> str:
    """A setting as a word, empty for 1."""
    return "" if value == 1 else f"{letter}{value}"


# --- what users write -------------------------------------------------------------------------------------


def conv(
    width: Any, kernel: Any = 1, stride: Any = 1, activation: Any = "", *, groups: Any = 1, name: str | None = None
) -> Part:
    """A convolution to `width` channels with "same" padding, BatchNorm and an activation."""
    return _Conv((width, kernel, stride, activation, groups), name=name)


def depthwise(kernel: Any = 3, stride: Any = 1, activation: Any = "", *, name: str | None = None) -> Part:
    """A convolution of each channel by itself with "same" padding, BatchNorm and an activation."""
    return _Depthwise((kernel, stride, activation), name=name)


def squeeze_excite(reduction: Any = 4, *, name: str | None = None) -> Part:
    """Each channel times a gate, computed from the means of all; inside, there are 1 / `reduction` of the channels."""
    return _SqueezeExcite((reduction,), name=name)


def activation(kind: Any, *, name: str | None = None) -> Part:
    """An activation alone."""
    return _Activation((kind,), name=name)


def max_pool(kernel: Any = 3, stride: Any = 2, *, name: str | None = None) -> Part:
    """The maximum of each window."""
    return _MaxPool((kernel, stride), name=name)


def average_pool(kernel: Any = 2, stride: Any = 2, *, name: str | None = None) -> Part:
    """The mean of each window, of the pixels inside the map."""
    return _AveragePool((kernel, stride), name=name)


def global_pool(*, name: str | None = None) -> Part:
    """The mean of each channel over the whole map."""
    return _GlobalPool((), name=name)


def linear(width: Any = None, activation: Any = "", *, name: str | None = None) -> Part:
    """A fully connected layer to `width` values; without a width, to one per class."""
    return _Linear((width, activation), name=name)
