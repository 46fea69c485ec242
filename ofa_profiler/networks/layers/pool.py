"""Pooling."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.networks.layers.base import Layer
from ofa_profiler.networks.layers.conv import strided
from ofa_profiler.networks.tensors import Shape


def _halved(shape: Shape) -> Shape:
    height, width, channels = shape
    return (strided(height, 2), strided(width, 2), channels)


@dataclass(frozen=True)
class MaxPool(Layer):
    """Maximum of each 3 x 3 window, "same" padding, stride 2. `nonnegative`: its input has no negative values."""

    nonnegative: bool = False

    def output_shape(self, *inputs: Shape) -> Shape:
        return _halved(inputs[0])


@dataclass(frozen=True)
class AvgPool(Layer):
    """Mean of each 2 x 2 window, stride 2. Windows at the edge use only pixels inside the map."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return _halved(inputs[0])


@dataclass(frozen=True)
class GlobalPool(Layer):
    """Mean over height and width: (H, W, C) -> (1, 1, C)."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return (1, 1, inputs[0][-1])
