"""Pooling in windows of any geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.networks.layers.any_conv import NO_MARGINS, Margins, Pair, windows
from ofa_profiler.networks.layers.base import Layer
from ofa_profiler.networks.tensors import Shape

Array = NDArray[Any]


def _pooled(shape: Shape, kernel: Pair, strides: Pair, pads: Margins) -> Shape:
    height, width, channels = shape
    top, left, bottom, right = pads
    return (
        windows(height, kernel[0], strides[0], top + bottom),
        windows(width, kernel[1], strides[1], left + right),
        channels,
    )


def counted(size: int, kernel: int, stride: int, before: int, count: int, extra: Pair = (0, 0)) -> tuple[int, ...]:
    """How many pixels of `count` windows along an axis count: those of the map, and `extra` ones at its ends.

    `before` is the margin before the map.
    """
    first, last = -extra[0], size + extra[1]
    starts = (stride * index - before for index in range(count))
    return tuple(min(start + kernel, last) - max(start, first) for start in starts)


@dataclass(frozen=True)
class WindowMax(Layer):
    """Maximum of each window, of the pixels inside the map. `nonnegative`: its input has no negative values."""

    kernel: Pair
    strides: Pair
    pads: Margins = NO_MARGINS
    nonnegative: bool = False

    def output_shape(self, *inputs: Shape) -> Shape:
        return _pooled(inputs[0], self.kernel, self.strides, self.pads)


@dataclass(frozen=True)
class WindowMean(Layer):
    """Sum of each window, zero outside the map, divided by the number of pixels that count.

    `rows`: how many rows of each window count, for every row of the output; `columns` likewise. Empty: all of them.
    """

    kernel: Pair
    strides: Pair
    pads: Margins = NO_MARGINS
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()

    def output_shape(self, *inputs: Shape) -> Shape:
        return _pooled(inputs[0], self.kernel, self.strides, self.pads)

    def factors(self) -> Array:
        """(rows, columns): the pixels of a window divided by those that count, if not all do."""
        counted = np.outer(np.array(self.rows, np.float32), np.array(self.columns, np.float32))
        factors: Array = np.float32(self.kernel[0] * self.kernel[1]) / counted
        return factors

    def counts_inside(self, shape: Shape) -> bool:
        """Whether some pixels of windows do not count, and these are the ones outside a map of this shape."""
        if not self.rows:
            return False
        top, left, _, _ = self.pads
        rows = counted(shape[0], self.kernel[0], self.strides[0], top, len(self.rows))
        columns = counted(shape[1], self.kernel[1], self.strides[1], left, len(self.columns))
        return (rows, columns) == (self.rows, self.columns)
