"""A convolution of any geometry."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ofa_profiler.networks.layers.activations import get_activation
from ofa_profiler.networks.layers.base import Layer, check_size
from ofa_profiler.networks.tensors import USUAL_SPAN, Shape, Span

#: Two sizes: of rows and of columns.
Pair = tuple[int, int]
#: Rows above, columns left, rows below, columns right.
Margins = tuple[int, int, int, int]
NO_MARGINS: Margins = (0, 0, 0, 0)


def windows(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """The number of windows along an axis; `padding` is that of both ends together."""
    return (size + padding - dilation * (kernel - 1) - 1) // stride + 1


@dataclass(frozen=True)
class AnyConv(Layer):
    """A convolution with bias, then an activation ("": none).

    Parameters: `conv.weight` (out, in / groups, rows, columns), `conv.bias` (out).
    """

    in_channels: int
    out_channels: int
    kernel: Pair
    strides: Pair = (1, 1)
    pads: Margins = NO_MARGINS
    dilations: Pair = (1, 1)
    groups: int = 1
    activation: str = ""

    def parameter_shapes(self) -> dict[str, Shape]:
        weight = (self.out_channels, self.in_channels // self.groups, *self.kernel)
        return {"conv.weight": weight, "conv.bias": (self.out_channels,)}

    def output_shape(self, *inputs: Shape) -> Shape:
        height, width, channels = inputs[0]
        check_size(self, "channels", channels, self.in_channels)
        top, left, bottom, right = self.pads
        rows = windows(height, self.kernel[0], self.strides[0], top + bottom, self.dilations[0])
        return (
            rows,
            windows(width, self.kernel[1], self.strides[1], left + right, self.dilations[1]),
            self.out_channels,
        )

    def usual_spans(self, *inputs: Span) -> dict[str, Span]:  # noqa: ARG002
        return get_activation(self.activation).spans(USUAL_SPAN)

    def macs(self, *inputs: Shape) -> int:
        height, width, _ = self.output_shape(*inputs)
        return height * width * prod(self.parameter_shapes()["conv.weight"])
