"""How an image becomes the input of a user's network, as the user's function says beside the module."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.spaces.base import Preprocessing

_FIELDS = ("mean", "std", "resolution", "channels", "range")
#: Of pixels in [0, 1].
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_ORDERS = ("RGB", "BGR")


@dataclass(frozen=True)
class ImageInput:
    """Images are cut to their centred square, resized to `resolution`, and normalised."""

    preprocessing: Preprocessing
    resolution: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the input, with a batch of 1."""
        return 1, 3, self.resolution, self.resolution


def image_shape(text: str) -> tuple[int, int, int, int]:
    """The value of `--input` for images, like `1x3x224x224`. Raises `UsageError`."""
    if not re.fullmatch(r"[0-9]{1,6}(x[0-9]{1,6}){3}", text):
        raise UsageError(f"--input {text!r:.80} is not like 1x3x224x224 (batch, channels, height, width)")
    batch, channels, height, width = map(int, text.split("x"))
    if batch != 1:
        raise UsageError(f"--input {text}: give a batch of 1, which is what the device is measured with")
    if channels != 3:
        raise UsageError(f"--input {text}: images have 3 channels; for other inputs use ofa_search.prune in Python")
    if height != width or not height:
        raise UsageError(
            f"--input {text}: images are cut to squares, so height and width must be equal and above 0; for other "
            "shapes use ofa_search.prune in Python"
        )
    return batch, channels, height, width


def image_input(said: object, resolution: int, where: str) -> ImageInput:
    """What the function `where` said beside its module; what it did not say is as for ImageNet.

    `resolution` is that of `--input`. Raises `UsageError`.
    """
    fields = {} if said is None else said
    if not isinstance(fields, Mapping):
        raise UsageError(
            f"{where} returns {type(said).__name__} beside the module: give a dict with some of {', '.join(_FIELDS)}"
        )
    if unknown := [name for name in fields if name not in _FIELDS]:
        raise UsageError(f"{where}: the preprocessing has {unknown[0]!r:.60}; its fields are {', '.join(_FIELDS)}")
    low, high = _numbers(fields.get("range", (0.0, 1.0)), 2, "range", where)
    if low >= high:
        raise UsageError(f"{where}: the range {low:g} to {high:g} of the preprocessing is empty")
    usual_mean, usual_std = (
        tuple(shift + (high - low) * value for value in values)
        for shift, values in ((low, _IMAGENET_MEAN), (0.0, _IMAGENET_STD))
    )
    channels = fields.get("channels", "RGB")
    if channels not in _ORDERS:
        raise UsageError(f"{where}: channels in the preprocessing is {channels!r:.40}, not {' or '.join(_ORDERS)}")
    turned = slice(None, None, -1 if channels == "BGR" else 1)
    mean = _numbers(fields.get("mean", usual_mean[turned]), 3, "mean", where)
    std = _numbers(fields.get("std", usual_std[turned]), 3, "std", where)
    if min(std) <= 0:
        raise UsageError(f"{where}: std in the preprocessing must be above 0")
    _check_resolution(fields.get("resolution", resolution), resolution, where)
    return ImageInput(
        Preprocessing((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), channels, (low, high)), resolution
    )


def _check_resolution(said: Any, given: int, where: str) -> None:
    sides = said if isinstance(said, Sequence) and not isinstance(said, str) else [said]
    if any(side != given for side in sides):
        raise UsageError(f"{where}: the preprocessing has the resolution {said!r:.40}, but --input has {given}")


def _numbers(value: Any, count: int, name: str, where: str) -> tuple[float, ...]:
    """`count` finite numbers of any sequence or array."""
    try:
        numbers = tuple(float(each) for each in value)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise UsageError(f"{where}: {name} in the preprocessing is {value!r:.60}, not {count} numbers")
    return numbers
