"""Squeeze-and-excite: each channel is multiplied by a gate, computed from the mean of all channels."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from ofa_profiler.networks.layers.base import SameShape, check_size
from ofa_profiler.networks.tensors import USUAL_SPAN, Shape, Span


@dataclass(frozen=True)
class SqueezeExcite(SameShape):
    """x * hsigmoid(expand(relu(reduce(mean(x))))) (MobileNetV3, arXiv 1905.02244, section 5.3).

    `reduce` and `expand` are 1 x 1 convolutions with bias. Parameters: `reduce.weight` (mid, channels, 1, 1),
    `reduce.bias` (mid), `expand.weight` (channels, mid, 1, 1), `expand.bias` (channels).
    """

    channels: int
    mid_channels: int

    def parameter_shapes(self) -> dict[str, Shape]:
        channels, mid = self.channels, self.mid_channels
        return {
            "reduce.weight": (mid, channels, 1, 1),
            "reduce.bias": (mid,),
            "expand.weight": (channels, mid, 1, 1),
            "expand.bias": (channels,),
        }

    def usual_spans(self, *inputs: Span) -> dict[str, Span]:
        """The output; inside `mean`, `reduce` (after its ReLU) and `expand` (before the hard sigmoid)."""
        gates = {"mean": inputs[0], "reduce": USUAL_SPAN.clipped(Span(0.0, inf)), "expand": USUAL_SPAN}
        return {"": inputs[0].with_zero(), **gates}

    def macs(self, *inputs: Shape) -> int:  # noqa: ARG002
        return 2 * self.channels * self.mid_channels

    def output_shape(self, *inputs: Shape) -> Shape:
        check_size(self, "channels", inputs[0][-1], self.channels)
        return inputs[0]
