"""The blocks of the built-in search spaces: from the kind of an op to its layers.

`block_op(...)` describes a block as an `Op`. `Op.graph` has its layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ofa_profiler.networks.graph import INPUT, Graph
from ofa_profiler.networks.layers import AvgPool, Conv, GlobalPool, Layer, Linear, MaxPool, SqueezeExcite
from ofa_profiler.networks.ofa_keys import key_of
from ofa_profiler.networks.op import Op, register_block
from ofa_profiler.networks.tensors import Shape, TensorSpec

MOBILENETV3, PROXYLESS, RESNET = "mobilenetv3", "proxyless", "resnet"

#: Epsilon of BatchNorm by family. The published ProxylessNAS networks use TensorFlow's value.
EPSILON = {MOBILENETV3: 1e-5, PROXYLESS: 1e-3}
#: The kinds whose layers or keys depend on the family.
_FAMILY_KINDS = ("stem", "mbconv", "final_expand")


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to a multiple of `divisor`, but never down by more than 10% (the rule of MobileNetV2)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@lru_cache(maxsize=1 << 16)
def block_op(
    kind: str,
    input_shape: Shape,
    output_shape: Shape,
    *,
    family: str = MOBILENETV3,
    kernel_size: int = 1,
    mid_channels: int = 0,
    stride: int = 1,
    skip: bool = False,
    se: bool = False,
    activation: str = "",
) -> Op:
    """The op of a block with these shapes (height, width, channels).

    A block with `skip` adds its input to its output. `mid_channels` is the number of channels between expansion and
    projection.
    """
    fields: dict[str, Any] = {
        "kernel_size": kernel_size,
        "mid_channels": mid_channels,
        "stride": stride,
        "skip": skip,
        "se": se,
        "activation": activation,
    }
    key = key_of(kind, input_shape, output_shape, family=family, **fields)
    if kind in _FAMILY_KINDS:
        fields["family"] = family
    inputs, outputs = TensorSpec(INPUT, "float32", input_shape), TensorSpec("output", "float32", output_shape)
    return Op(kind, (inputs,), (outputs,), fields, key)


def default_family(kind: str, activation: str) -> str | None:
    """The family of an op from a table without this attribute; None for kinds that all families share."""
    if kind not in _FAMILY_KINDS:
        return None
    return PROXYLESS if activation == "relu6" else MOBILENETV3


# --- layers ------------------------------------------------------------------------------------------------


def _conv(op: Op, name: str, inputs: int, outputs: int, *, spatial: bool = False) -> Conv:
    """A dense convolution with the epsilon of the family of `op`."""
    fields: Any = op.attributes
    size = {"kernel_size": fields["kernel_size"], "stride": fields["stride"]} if spatial else {}
    epsilon = EPSILON[fields.get("family", MOBILENETV3)]
    return Conv(name, inputs, outputs, **size, epsilon=epsilon, activation=fields["activation"])


def _channels(op: Op) -> tuple[int, int]:
    return op.input_shape[-1], op.output_shape[-1]


@register_block("stem")
@register_block("final_expand")
@register_block("conv")
def _one_conv(op: Op) -> Graph:
    layer = _conv(op, "conv", *_channels(op), spatial=True)
    return Graph.with_shortcut((layer,), op.input_shape, () if op.attributes["skip"] else None, "")


@register_block("feature_mix")
def _feature_mix(op: Op) -> Graph:
    layer = Conv("conv", *_channels(op), batch_norm=False, activation=str(op.attributes["activation"]))
    return Graph.chain((layer,), op.input_shape)


@register_block("max_pool")
def _max_pool(op: Op) -> Graph:
    return Graph.chain((MaxPool("pool", nonnegative=True),), op.input_shape)  # in ResNets, it follows a ReLU


@register_block("pool")
def _pool(op: Op) -> Graph:
    return Graph.chain((GlobalPool("pool"),), op.input_shape)


@register_block("classifier")
def _classifier(op: Op) -> Graph:
    linear = Linear("linear", *_channels(op))
    return Graph.chain((linear,) if op.input_shape[:-1] == (1, 1) else (GlobalPool("pool"), linear), op.input_shape)


@register_block("mbconv")
def _mbconv(op: Op) -> Graph:
    """An inverted bottleneck (MobileNetV2, arXiv 1801.04381, section 3.3)."""
    fields: Any = op.attributes
    inputs, outputs = _channels(op)
    mid = fields["mid_channels"]
    layers: list[Layer] = []
    if mid != inputs:  # no expansion convolution for an expand ratio of 1
        layers.append(_conv(op, "inverted_bottleneck", inputs, mid))
    layers.append(replace(_conv(op, "depth_conv", mid, mid, spatial=True), groups=mid))
    if fields["se"]:
        layers.append(SqueezeExcite("se", mid, make_divisible(mid // 4)))
    layers.append(replace(_conv(op, "point_linear", mid, outputs), activation=""))
    return Graph.with_shortcut(layers, op.input_shape, () if fields["skip"] else None, "")


@register_block("bottleneck")
def _bottleneck(op: Op) -> Graph:
    """A bottleneck of ResNet-D (arXiv 1812.01187, section 4.1).

    If it changes the shape, its shortcut has a 1 x 1 convolution, after 2 x 2 average pooling if the stride is 2.
    """
    fields: Any = op.attributes
    inputs, outputs = _channels(op)
    mid = fields["mid_channels"]
    layers = (
        _conv(op, "conv1", inputs, mid),
        _conv(op, "conv2", mid, mid, spatial=True),
        replace(_conv(op, "conv3", mid, outputs), activation=""),
    )
    shortcut: tuple[Layer, ...] = ()
    if not fields["skip"]:
        downsample = replace(_conv(op, "downsample", inputs, outputs), activation="")
        shortcut = (AvgPool("avg_pool"), downsample) if fields["stride"] == 2 else (downsample,)
    return Graph.with_shortcut(layers, op.input_shape, shortcut, fields["activation"])


# --- networks ----------------------------------------------------------------------------------------------

#: The slots of a network as (slot name, op), in the order of execution. See `SearchSpace.layout`.
Layout = Sequence[tuple[str, Op]]


def as_graph(network: Op | Layout | Graph) -> Graph:
    """The graph of one op, or of a chain of ops. The nodes of a chain are named `SLOT.LAYER`."""
    if isinstance(network, Graph):
        return network
    if isinstance(network, Op):
        return network.graph
    return Graph.joined((slot, op.graph) for slot, op in network)
