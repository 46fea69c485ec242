"""A scale and a shift per channel."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.networks.layers.activations import get_activation
from ofa_profiler.networks.layers.base import Layer, check_size
from ofa_profiler.networks.tensors import USUAL_SPAN, Shape, Span


@dataclass(frozen=True)
class Affine(Layer):
    """weight * x + bias, then an activation ("": none): a BatchNorm that follows no convolution.

    The input is a map or a vector. Parameters: `weight` (channels), `bias` (channels).
    """

    channels: int
    activation: str = ""

    def parameter_shapes(self) -> dict[str, Shape]:
        return {"weight": (self.channels,), "bias": (self.channels,)}

    def output_shape(self, *inputs: Shape) -> Shape:
        check_size(self, "channels", inputs[0][-1], self.channels)
        return inputs[0]

    def usual_spans(self, *inputs: Span) -> dict[str, Span]:  # noqa: ARG002
        return get_activation(self.activation).spans(USUAL_SPAN)
