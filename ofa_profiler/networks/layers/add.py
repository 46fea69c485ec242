"""The addition of two branches."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.layers.activations import get_activation
from ofa_profiler.networks.layers.base import Layer
from ofa_profiler.networks.tensors import Shape, Span


@dataclass(frozen=True)
class Add(Layer):
    """The sum of two inputs of the same shape, then an activation ("": none)."""

    activation: str = ""

    def output_shape(self, *inputs: Shape) -> Shape:
        first, second = inputs
        if first != second:
            raise UsageError(f"layer {self.name} cannot add the different shapes {first} and {second}")
        return first

    def usual_spans(self, *inputs: Span) -> dict[str, Span]:
        linear = Span(sum(span.low for span in inputs), sum(span.high for span in inputs))
        return get_activation(self.activation).spans(linear)
