"""The product of two tensors."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.layers.base import Layer
from ofa_profiler.networks.tensors import Shape, Span


@dataclass(frozen=True)
class Multiply(Layer):
    """The product of two inputs, element by element. Sizes of 1 repeat, such as those of a gate (1, 1, channels)."""

    def output_shape(self, *inputs: Shape) -> Shape:
        first, second = inputs
        if len(first) != len(second) or any(a != b and 1 not in (a, b) for a, b in zip(first, second, strict=False)):
            raise UsageError(f"layer {self.name} cannot multiply the shapes {first} and {second}")
        return tuple(map(max, first, second))

    def usual_spans(self, *inputs: Span) -> dict[str, Span]:
        corners = [a * b for a in inputs[0] for b in inputs[1]]
        return {"": Span(min(corners), max(corners))}
