"""Margins: those of "same" padding, and those of an operator that pads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ofa_profiler.models.rewriting.base import IMAGE_AXES
from ofa_profiler.models.rewriting.tflite_document import TfliteDocument


class Margins(NamedTuple):
    """Rows and columns that are added at each side."""

    top: int
    bottom: int
    left: int
    right: int


def same_along(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """What "same" padding adds before and after `size` values. `kernel` counts the gaps of dilation."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def padded_by(document: TfliteDocument, operator: Any) -> Margins | None:
    """The margins of a padding operator; None if they are unknown or not at the sides of images alone."""
    amounts = document.constant(int(operator.inputs[1]))
    if amounts is None or amounts.shape != (IMAGE_AXES, 2) or np.any(amounts[[0, 3]]):
        return None
    return Margins(*(int(amount) for amount in amounts[1:3].reshape(-1)))


def add_pad(document: TfliteDocument, tensor: int, margins: Margins, name: str) -> tuple[int, Any]:
    """A tensor that is `tensor` with zeros at its sides, and the operator that makes it. The size must be known."""
    batch, height, width, channels = document.shape(tensor)
    shape = (batch, height + margins.top + margins.bottom, width + margins.left + margins.right, channels)
    amounts = np.array([(0, 0), margins[:2], margins[2:], (0, 0)], np.int32)
    inputs = [tensor, document.add_constant(f"{name}/paddings", amounts)]
    padded = document.add_tensor(f"{name}/padded", tensor, shape)
    version = 1 if document.is_float(tensor) else 2
    return padded, document.operator("PAD", version, inputs, padded, document.options("PadOptions"))
