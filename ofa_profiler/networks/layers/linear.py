"""The fully connected layer."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ofa_profiler.networks.layers.base import Layer, check_size
from ofa_profiler.networks.tensors import USUAL_SPAN, Shape, Span


@dataclass(frozen=True)
class Linear(Layer):
    """Flatten, then a fully connected layer. Parameters: `weight` (out, in), `bias` (out)."""

    in_features: int
    out_features: int

    def parameter_shapes(self) -> dict[str, Shape]:
        return {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}

    def output_shape(self, *inputs: Shape) -> Shape:
        check_size(self, "features", prod(inputs[0]), self.in_features)
        return (self.out_features,)

    def usual_spans(self, *inputs: Span) -> dict[str, Span]:  # noqa: ARG002
        return {"": USUAL_SPAN}

    def macs(self, *inputs: Shape) -> int:  # noqa: ARG002
        return self.in_features * self.out_features
