"""The op: the unit that is profiled, and the layers that it is made of.

An `Op` is what one row of a latency table measures: a stem, a block with its exact shapes, a head
convolution, the pooling, the classifier. Everything else that the project knows about it is computed
from its fields: the key of the published tables, its layers, and from the layers the torch module
(`nets.py`), the ONNX graph (`export/`), its MACs and its parameters.

Shapes are height x width x channels, as in the published keys, without the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

Shape = tuple[int, ...]


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to a multiple of `divisor`, never losing more than 10% (MobileNetV2's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclass(frozen=True)
class Conv:
    """A square convolution with "same" padding, then BatchNorm if any, then the activation.

    Parameters: `NAME.conv.weight` (out, in / groups, k, k), `NAME.conv.bias` (out) when `bias`,
    `NAME.bn.{weight,bias,running_mean,running_var}` (out) when `batch_norm`.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    batch_norm: bool = True
    activation: str | None = None


@dataclass(frozen=True)
class SqueezeExcite:
    """x * hsigmoid(expand(relu(reduce(mean(x))))), both with bias (MobileNetV3, section 5.3).

    Parameters: `NAME.reduce.{weight,bias}`, `NAME.expand.{weight,bias}`, 1x1 convolutions.
    """

    name: str
    channels: int
    mid_channels: int


@dataclass(frozen=True)
class GlobalPool:
    """Mean over height and width, kept as 1 x 1."""

    name: str


@dataclass(frozen=True)
class Linear:
    """Flatten, then a fully connected layer. Parameters: `NAME.weight` (out, in), `NAME.bias` (out)."""

    name: str
    in_features: int
    out_features: int


Layer = Conv | SqueezeExcite | GlobalPool | Linear

#: kind -> how the published tables call it
KEY_PREFIX = {
    "stem": "Conv",
    "mbconv": "expanded_conv",
    "final_expand": "Conv_1",
    "pool": "AvgPool2D",
    "feature_mix": "Conv_2",
    "classifier": "Logits",
}


@dataclass(frozen=True)
class Op:
    """One profiled unit. `activation` is `relu`, `h_swish` or `""` where there is none."""

    kind: str
    input_shape: Shape
    output_shape: Shape
    kernel_size: int = 1
    mid_channels: int = 0
    stride: int = 1
    skip: bool = False
    se: bool = False
    activation: str = ""

    @cached_property
    def key(self) -> str:
        """The key of the tables published by the OFA authors, letter for letter."""
        source = "x".join(map(str, self.input_shape))
        target = "x".join(map(str, self.output_shape))
        key = f"{KEY_PREFIX[self.kind]}-input:{source}-output:{target}"
        if self.kind != "mbconv":
            return key
        return (
            f"{key}-expand:{self.mid_channels}-kernel:{self.kernel_size}-stride:{self.stride}"
            f"-idskip:{self.skip:d}-se:{self.se:d}-hs:{self.activation == 'h_swish':d}"
        )

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in the order in which they run; `skip` then adds the op's input."""
        inputs, outputs = self.input_shape[-1], self.output_shape[-1]
        match self.kind:
            case "stem" | "final_expand":
                return (Conv("conv", inputs, outputs, self.kernel_size, self.stride, activation=self.activation),)
            case "feature_mix":
                return (Conv("conv", inputs, outputs, batch_norm=False, activation=self.activation),)
            case "pool":
                return (GlobalPool("pool"),)
            case "classifier":
                return (Linear("linear", inputs, outputs),)
            case "mbconv":
                return self._mbconv_layers(inputs, outputs)
        raise ValueError(f"unknown kind of op {self.kind!r}")

    def _mbconv_layers(self, inputs: int, outputs: int) -> tuple[Layer, ...]:
        mid = self.mid_channels
        layers: list[Layer] = []
        if mid != inputs:  # an expand ratio of 1 has no expansion convolution
            layers.append(Conv("inverted_bottleneck", inputs, mid, activation=self.activation))
        layers.append(
            Conv("depth_conv", mid, mid, self.kernel_size, self.stride, groups=mid, activation=self.activation)
        )
        if self.se:
            layers.append(SqueezeExcite("se", mid, make_divisible(mid // 4)))
        layers.append(Conv("point_linear", mid, outputs))
        return tuple(layers)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of its convolutions and linear layers for one image.

        Biases, BatchNorm (folded before it runs), activations, pooling and the scaling of the
        squeeze-excite are not counted, as in the papers of the field.
        """
        size = self.input_shape[0]
        macs = 0
        for layer in self.layers:
            if isinstance(layer, Conv):
                size = (size - 1) // layer.stride + 1
                macs += size * size * prod(conv_weight_shape(layer))
            elif isinstance(layer, SqueezeExcite):
                macs += 2 * layer.channels * layer.mid_channels
            elif isinstance(layer, Linear):
                macs += layer.in_features * layer.out_features
        return macs

    @cached_property
    def params(self) -> int:
        """Trainable parameters, BatchNorm's scale and shift included."""
        params = 0
        for layer in self.layers:
            if isinstance(layer, Conv):
                params += prod(conv_weight_shape(layer)) + layer.out_channels * (layer.bias + 2 * layer.batch_norm)
            elif isinstance(layer, SqueezeExcite):
                params += 2 * layer.channels * layer.mid_channels + layer.channels + layer.mid_channels
            elif isinstance(layer, Linear):
                params += (layer.in_features + 1) * layer.out_features
        return params


def conv_weight_shape(layer: Conv) -> tuple[int, int, int, int]:
    """(out, in / groups, k, k), as torch and ONNX store it."""
    return (layer.out_channels, layer.in_channels // layer.groups, layer.kernel_size, layer.kernel_size)
