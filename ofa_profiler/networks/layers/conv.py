"""The convolution, with BatchNorm and activation."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ofa_profiler.networks.layers.activations import get_activation
from ofa_profiler.networks.layers.base import Layer, check_size
from ofa_profiler.networks.tensors import USUAL_SPAN, Shape, Span

BATCH_NORM_FIELDS = ("weight", "bias", "running_mean", "running_var")


def strided(size: int, *strides: int) -> int:
    """Height or width after layers with "same" padding and these strides."""
    for stride in strides:
        size = (size - 1) // stride + 1
    return size


@dataclass(frozen=True)
class Conv(Layer):
    """A square convolution with "same" padding, then optional BatchNorm, then an activation ("": none).

    Parameters: `conv.weight` (out, in / groups, k, k); `conv.bias` (out) if `bias` is set;
    `bn.{weight,bias,running_mean,running_var}` (out) if `batch_norm` is set. BatchNorm adds `epsilon` to the variance.
    """

    in_channels: int
    out_channels: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    batch_norm: bool = True
    epsilon: float = 1e-5
    activation: str = ""

    @property
    def weight_shape(self) -> Shape:
        """(out, in / groups, k, k), the layout of torch and ONNX."""
        return (self.out_channels, self.in_channels // self.groups, self.kernel_size, self.kernel_size)

    def parameter_shapes(self) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {"conv.weight": self.weight_shape}
        if self.bias:
            shapes["conv.bias"] = (self.out_channels,)
        if self.batch_norm:
            shapes |= {f"bn.{field}": (self.out_channels,) for field in BATCH_NORM_FIELDS}
        return shapes

    def output_shape(self, *inputs: Shape) -> Shape:
        height, width, channels = inputs[0]
        check_size(self, "channels", channels, self.in_channels)
        return (strided(height, self.stride), strided(width, self.stride), self.out_channels)

    def usual_spans(self, *inputs: Span) -> dict[str, Span]:  # noqa: ARG002
        return get_activation(self.activation).spans(USUAL_SPAN)

    def macs(self, *inputs: Shape) -> int:
        height, width, _ = self.output_shape(*inputs)
        return height * width * prod(self.weight_shape)
