"""From maps to vectors, and back."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ofa_profiler.networks.layers.base import Layer
from ofa_profiler.networks.tensors import Shape


@dataclass(frozen=True)
class Flatten(Layer):
    """A map as a vector, in torch's order: all pixels of the first channel, then those of the next one."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return (prod(inputs[0]),)


@dataclass(frozen=True)
class AsMap(Layer):
    """A vector as a map of one pixel: (C,) -> (1, 1, C)."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return (1, 1, *inputs[0])
