"""Several inputs as one."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.layers.base import Layer
from ofa_profiler.networks.tensors import Shape, Span


@dataclass(frozen=True)
class Concat(Layer):
    """The channels of all inputs, maps of the same size or vectors, one input after the other."""

    def output_shape(self, *inputs: Shape) -> Shape:
        if len({shape[:-1] for shape in inputs}) > 1:
            raise UsageError(f"layer {self.name} cannot join maps of different sizes: {', '.join(map(str, inputs))}")
        return (*inputs[0][:-1], sum(shape[-1] for shape in inputs))

    def usual_spans(self, *inputs: Span) -> dict[str, Span]:
        return {"": Span(min(span.low for span in inputs), max(span.high for span in inputs))}
