"""The op: the unit that is profiled, and the layers that it is made of.

An `Op` is what one row of a latency table measures: a stem, a block with its exact shapes, a head
convolution, the pooling, the classifier. Everything else that the project knows about it is computed
from its fields: the key of the published tables, its layers, and from the layers the torch module
(`nets.py`), the ONNX graph (`export/`), its MACs and its parameters.

Shapes are height x width x channels, as in the published keys, without the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    `NAME.bn.{weight,bias,running_mean,running_var}` (out) when `batch_norm`. `epsilon` is what
    BatchNorm adds to the variance.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    batch_norm: bool = True
    epsilon: float = 1e-5
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
class MaxPool:
    """The largest of each 3 x 3 window, "same" padding, stride 2."""

    name: str


@dataclass(frozen=True)
class AvgPool:
    """Mean of each 2 x 2 window, stride 2; windows over the edge count what is inside."""

    name: str


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


Layer = Conv | SqueezeExcite | MaxPool | AvgPool | GlobalPool | Linear

#: kind -> how the published tables call it; no tables of ResNets are published, so the last three are ours
KEY_PREFIX = {
    "stem": "Conv",
    "mbconv": "expanded_conv",
    "final_expand": "Conv_1",
    "pool": "AvgPool2D",
    "feature_mix": "Conv_2",
    "classifier": "Logits",
    "conv": "Conv3x3",
    "max_pool": "MaxPool2D",
    "bottleneck": "bottleneck",
}

#: What an op may name as its activation; "" is none.
ACTIVATIONS = ("relu", "relu6", "h_swish", "")


@dataclass(frozen=True)
class Op:
    """One profiled unit.

    A block adds a shortcut to what its layers give: its own input where `skip` is set. `relu6` marks
    ops of the ProxylessNAS family.
    """

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
        if self.kind in ("mbconv", "bottleneck"):
            # The tables of ProxylessNAS have the ratio where those of MobileNetV3 have the channels.
            expand = self.mid_channels // self.input_shape[-1] if self.activation == "relu6" else self.mid_channels
            key += f"-expand:{expand}"
        if self.kind in ("mbconv", "bottleneck", "conv"):
            key += f"-kernel:{self.kernel_size}-stride:{self.stride}-idskip:{self.skip:d}"
        if self.kind == "mbconv" and self.activation != "relu6":
            key += f"-se:{self.se:d}-hs:{self.activation == 'h_swish':d}"
        return key

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of the main branch, in the order in which they run."""
        inputs, outputs = self.input_shape[-1], self.output_shape[-1]
        match self.kind:
            case "stem" | "final_expand" | "conv":
                return (self._conv("conv", inputs, outputs, self.kernel_size, self.stride),)
            case "feature_mix":
                return (Conv("conv", inputs, outputs, batch_norm=False, activation=self.activation),)
            case "max_pool":
                return (MaxPool("pool"),)
            case "pool":
                return (GlobalPool("pool"),)
            case "classifier":
                linear = Linear("linear", inputs, outputs)
                return (linear,) if self.input_shape[:-1] == (1, 1) else (GlobalPool("pool"), linear)
            case "mbconv":
                return self._mbconv_layers(inputs, outputs)
            case "bottleneck":
                mid = self.mid_channels
                return (
                    self._conv("conv1", inputs, mid),
                    self._conv("conv2", mid, mid, self.kernel_size, self.stride),
                    replace(self._conv("conv3", mid, outputs), activation=None),
                )
        raise ValueError(f"unknown kind of op {self.kind!r}")

    @cached_property
    def shortcut(self) -> tuple[Layer, ...] | None:
        """The layers through which the input goes that is added to the main branch (none: as it is).

        None where nothing is added. A bottleneck that changes the shape has the downsampling of
        ResNet-D (arXiv 1812.01187, section 4.1): the mean of 2 x 2, then a 1 x 1 convolution.
        """
        if self.skip:
            return ()
        if self.kind != "bottleneck":
            return None
        downsample = replace(self._conv("downsample", self.input_shape[-1], self.output_shape[-1]), activation=None)
        return (AvgPool("avg_pool"), downsample) if self.stride == 2 else (downsample,)

    @property
    def final_activation(self) -> str:
        """The activation after the shortcut was added; "" where there is none."""
        return self.activation if self.kind == "bottleneck" else ""

    @property
    def all_layers(self) -> tuple[Layer, ...]:
        """Those of both branches."""
        return self.layers + (self.shortcut or ())

    def _conv(self, name: str, inputs: int, outputs: int, kernel_size: int = 1, stride: int = 1) -> Conv:
        """A dense convolution as the family of this op has it."""
        # The published ProxylessNAS networks keep the epsilon of TensorFlow.
        epsilon = 1e-3 if self.activation == "relu6" else 1e-5
        return Conv(name, inputs, outputs, kernel_size, stride, epsilon=epsilon, activation=self.activation)

    def _mbconv_layers(self, inputs: int, outputs: int) -> tuple[Layer, ...]:
        mid = self.mid_channels
        layers: list[Layer] = []
        if mid != inputs:  # an expand ratio of 1 has no expansion convolution
            layers.append(self._conv("inverted_bottleneck", inputs, mid))
        layers.append(replace(self._conv("depth_conv", mid, mid, self.kernel_size, self.stride), groups=mid))
        if self.se:
            layers.append(SqueezeExcite("se", mid, make_divisible(mid // 4)))
        layers.append(replace(self._conv("point_linear", mid, outputs), activation=None))
        return tuple(layers)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of its convolutions and linear layers for one image.

        Biases, BatchNorm (folded before it runs), activations, pooling and the scaling of the
        squeeze-excite are not counted, as in the papers of the field.
        """
        return sum(_macs(branch, self.input_shape[0]) for branch in (self.layers, self.shortcut or ()))

    @cached_property
    def params(self) -> int:
        """Trainable parameters, BatchNorm's scale and shift included."""
        params = 0
        for layer in self.all_layers:
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


def _macs(layers: tuple[Layer, ...], size: int) -> int:
    """Of layers that run one after the other on a map of `size` x `size`."""
    macs = 0
    for layer in layers:
        if isinstance(layer, Conv):
            size = (size - 1) // layer.stride + 1
            macs += size * size * prod(conv_weight_shape(layer))
        elif isinstance(layer, MaxPool | AvgPool):
            size = (size - 1) // 2 + 1
        elif isinstance(layer, SqueezeExcite):
            macs += 2 * layer.channels * layer.mid_channels
        elif isinstance(layer, Linear):
            macs += layer.in_features * layer.out_features
    return macs
