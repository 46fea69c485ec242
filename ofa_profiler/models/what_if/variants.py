"""The edited networks of a user's model: one per change, at all equal places together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ofa_profiler.errors import UsageError
from ofa_profiler.models.base import Array, TimedModel, UserModel
from ofa_profiler.models.what_if.activations import ReluInstead
from ofa_profiler.models.what_if.base import Idea, Net, Place
from ofa_profiler.models.what_if.channels import WholeChannels
from ofa_profiler.models.what_if.kernels import SmallerKernels
from ofa_profiler.models.what_if.onnx_net import OnnxNet
from ofa_profiler.models.what_if.tflite_net import TfliteNet

IDEAS: tuple[Idea, ...] = (ReluInstead(), SmallerKernels(), WholeChannels())
#: Each edited network is a whole file, which travels to the device and is measured as long as the network.
MAX_VARIANTS, MAX_BYTES = 24, 2**30
#: What edits a file of a runtime.
_NETS: Mapping[str, Callable[[TimedModel, Mapping[str, Array]], Net]] = {"onnxruntime": OnnxNet, "litert": TfliteNet}
_KEY = "what-if-"


@dataclass(frozen=True, eq=False)
class Variant:
    """An edited network. `label` says in words what is changed, `places` where. `key` names it in a journal."""

    key: str
    label: str
    places: tuple[str, ...]
    model: TimedModel = field(repr=False)


@dataclass(frozen=True)
class WhatIf:
    """The edited networks; and the changes that are left out because there are too many, by label."""

    variants: tuple[Variant, ...]
    untried: tuple[str, ...] = ()


def what_if(model: UserModel, feeds: Mapping[str, Array]) -> WhatIf:
    """The edited networks of a model, those first where there is most to save. They get the feeds of the original.

    An edited network that this machine does not run, or whose outputs have other shapes, is left out. Raises
    `UsageError` if files of the model's runtime cannot be edited.
    """
    if model.runtime not in _NETS:
        raise UsageError(f"--what-if cannot edit models of {model.runtime}; it can edit those of {', '.join(_NETS)}")
    whole = model.whole(feeds)
    net = _NETS[model.runtime](whole, feeds)
    shapes = net.output_shapes(whole.data)
    most = max(1, min(MAX_VARIANTS, MAX_BYTES // len(whole.data)))
    variants: list[Variant] = []
    untried: list[str] = []
    for group in _groups(net):
        if len(variants) >= most:
            untried.append(_label(group))
        elif (data := _edited(net, group, shapes)) is not None:
            names = tuple(place.name for place in group)
            variants.append(Variant(f"{_KEY}{len(variants) + 1}", _label(group), names, TimedModel(data, whole.feeds)))
    return WhatIf(tuple(variants), tuple(untried))


def _groups(net: Net) -> list[list[Place]]:
    """Equal places together, the most work first."""
    found: dict[tuple[object, ...], list[Place]] = {}
    for idea in IDEAS:
        for place in idea.places(net):
            found.setdefault((place.what, *place.signature), []).append(place)
    return sorted(found.values(), key=lambda places: -sum(place.work for place in places))


def _edited(net: Net, places: Sequence[Place], shapes: Mapping[str, tuple[int, ...]]) -> bytes | None:
    editor = net.edit()
    for place in places:
        place.apply(editor)
    data = editor.data()
    try:
        return data if net.output_shapes(data) == shapes else None
    except UsageError:
        return None


def _label(places: Sequence[Place]) -> str:
    where = f"in {places[0].name}" if len(places) == 1 else f"at {len(places)} places like {places[0].name}"
    return f"{places[0].what} {where}"
