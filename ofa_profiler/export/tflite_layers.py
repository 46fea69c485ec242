"""The TFLite nodes of each layer type, as a converter writes them.

BatchNorm is folded into the convolutions. Activations are fused into the node before them if TFLite supports it.
XNNPACK and other delegates support these operators.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.export.tflite_graph import REFLECT, SAME, VALID, TfliteGraph
from ofa_profiler.networks.layers import (
    Add,
    AvgPool,
    Conv,
    Gelu,
    GlobalPool,
    LayerNorm,
    Linear,
    MaxPool,
    SelfAttention,
    SqueezeExcite,
)
from ofa_profiler.networks.layers.tables import TFLITE_LAYERS
from ofa_profiler.networks.parameters import Array, folded_conv
from ofa_profiler.networks.tensors import Shape, Span


@TFLITE_LAYERS.register(Conv)
def _conv(graph: TfliteGraph, layer: Conv, name: str, tensor: str) -> str:
    if layer.groups != 1 and not layer.groups == layer.in_channels == layer.out_channels:
        raise UsageError(f"{name}: the TFLite exporter does not support convolutions with {layer.groups} groups")
    weight, bias = folded_conv(layer, name, graph.weights)
    return graph.add_conv(name, tensor, weight, bias, layer.activation, layer.stride, layer.groups > 1)


@TFLITE_LAYERS.register(SqueezeExcite)
def _squeeze_excite(graph: TfliteGraph, _layer: SqueezeExcite, name: str, tensor: str) -> str:
    def parameter(part: str, field: str) -> Array:
        return graph.weights[f"{name}.{part}.{field}"]

    gate = add_reduced(graph, name, tensor)
    # TFLite has no hard sigmoid, which is relu6(x + 3) / 6. The bias of the convolution includes the 3.
    shifted = parameter("expand", "bias") + np.float32(3)
    gate = graph.add_conv(f"{name}.expand", gate, parameter("expand", "weight"), shifted, "relu6")
    graph.marks.add(gate, f"{name}.expand", lambda span: Span(span.low + 3, span.high + 3).clipped(Span(0, 6)))
    sixth = graph.add_constant("one_sixth", np.array(1 / 6, np.float32))
    gate = graph.add_active("MUL", [gate, sixth], f"{name}.gate", graph.shapes[gate])
    return graph.add_active("MUL", [tensor, gate], name, graph.shapes[tensor])


def add_reduced(graph: TfliteGraph, name: str, tensor: str) -> str:
    """Add the first half of a squeeze-excite: relu(reduce(mean(x)))."""
    mean = graph.add_mean(name, tensor)
    graph.marks.add(mean, f"{name}.mean")
    weight, bias = (graph.weights[f"{name}.reduce.{field}"] for field in ("weight", "bias"))
    reduced = graph.add_conv(f"{name}.reduce", mean, weight, bias, "relu")
    graph.marks.add(reduced, f"{name}.reduce")
    return reduced


@TFLITE_LAYERS.register(MaxPool)
def _max_pool(graph: TfliteGraph, _layer: MaxPool, name: str, tensor: str) -> str:
    # Zero padding could change the maximum. Mirrored values cannot, because they are already in the window.
    padded = graph.add_pad("MIRROR_PAD", tensor, f"{name}.pads", 1, 1, Mode=REFLECT)
    return graph.add_pool("MAX_POOL_2D", padded, name, 3, VALID)


@TFLITE_LAYERS.register(AvgPool)
def _avg_pool(graph: TfliteGraph, _layer: AvgPool, name: str, tensor: str) -> str:
    return graph.add_pool("AVERAGE_POOL_2D", tensor, name, 2, SAME)


@TFLITE_LAYERS.register(GlobalPool)
def _global_pool(graph: TfliteGraph, _layer: GlobalPool, name: str, tensor: str) -> str:
    return graph.add_mean(name, tensor)


@TFLITE_LAYERS.register(Linear)
def _linear(graph: TfliteGraph, layer: Linear, name: str, tensor: str) -> str:
    weight = graph.weights[f"{name}.weight"]
    batch, *sizes = graph.shapes[tensor]
    if len(sizes) == 3 and sizes[:2] != [1, 1]:  # torch flattens (C, H, W)
        height, width, channels = sizes
        weight = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(weight.shape)
    constants = [graph.add_constant(f"{name}.weight", weight), graph.add_parameter(f"{name}.bias")]
    return graph.add_active("FULLY_CONNECTED", [tensor, *constants], name, (batch, layer.out_features))


@TFLITE_LAYERS.register(Add)
def _add(graph: TfliteGraph, layer: Add, name: str, first: str, second: str) -> str:
    return graph.add_active("ADD", [first, second], name, graph.shapes[first], layer.activation)


@TFLITE_LAYERS.register(LayerNorm)
def _layer_norm(graph: TfliteGraph, layer: LayerNorm, name: str, tensor: str) -> str:
    """TFLite has no such operator, so it is built from elementary ones."""
    shape = graph.shapes[tensor]
    axes = graph.add_constant("last_axis", np.array([len(shape) - 1], np.int32))

    def mean(part: str, source: str) -> str:
        return graph.add_node("MEAN", [source, axes], part, (*shape[:-1], 1), KeepDims=1)

    centred = graph.add_active("SUB", [tensor, mean(f"{name}.mean", tensor)], f"{name}.centred", shape)
    squared = graph.add_active("MUL", [centred, centred], f"{name}.squared", shape)
    variance = mean(f"{name}.variance", squared)
    epsilon = graph.add_constant(f"{name}.epsilon", np.array(layer.epsilon, np.float32))
    shifted = graph.add_active("ADD", [variance, epsilon], f"{name}.shifted", graph.shapes[variance])
    inverse = graph.add_node("RSQRT", [shifted], f"{name}.inverse", graph.shapes[variance])
    normalised = graph.add_active("MUL", [centred, inverse], f"{name}.normalised", shape)
    scaled = graph.add_active("MUL", [normalised, graph.add_parameter(f"{name}.weight")], f"{name}.scaled", shape)
    return graph.add_active("ADD", [scaled, graph.add_parameter(f"{name}.bias")], name, shape)


@TFLITE_LAYERS.register(Gelu)
def _gelu(graph: TfliteGraph, _layer: Gelu, name: str, tensor: str) -> str:
    return graph.add_node("GELU", [tensor], name, graph.shapes[tensor], Approximate=0)


@TFLITE_LAYERS.register(SelfAttention)
def _self_attention(graph: TfliteGraph, layer: SelfAttention, name: str, tensor: str) -> str:
    (batch, length, channels), heads = graph.shapes[tensor], layer.heads
    width = channels // heads

    def dense(part: str, source: str, weight: Array, bias: Array) -> str:
        inputs = [
            source,
            graph.add_constant(f"{part}.weight", weight),
            graph.add_constant(f"{part}.bias", bias),
        ]
        return graph.add_active("FULLY_CONNECTED", inputs, part, (batch, length, channels), KeepNumDims=1)

    def reshaped(part: str, source: str, shape: Shape) -> str:
        return graph.add_node(
            "RESHAPE", [source, graph.add_constant(f"{part}.shape", np.array(shape, np.int32))], part, shape
        )

    def transposed(part: str, source: str, shape: Shape) -> str:
        """(N, a, b, c) -> (N, b, a, c)."""
        order = graph.add_constant("swap_middle", np.array([0, 2, 1, 3], np.int32))
        return graph.add_node("TRANSPOSE", [source, order], part, shape)

    def by_head(index: int, part: str) -> str:
        rows = slice(index * channels, (index + 1) * channels)
        weight, bias = (graph.weights[f"{name}.qkv.{field}"][rows] for field in ("weight", "bias"))
        if index == 0:  # scaling the queries here saves scaling the scores at run time
            weight, bias = weight / np.float32(sqrt(width)), bias / np.float32(sqrt(width))
        split = reshaped(part, dense(part, tensor, weight, bias), (batch, length, heads, width))
        return transposed(part, split, (batch, heads, length, width))

    queries, keys, values = (by_head(i, f"{name}.{part}") for i, part in enumerate(("queries", "keys", "values")))
    square = (batch, heads, length, length)
    scores = graph.add_node("BATCH_MATMUL", [queries, keys], f"{name}.scores", square, AdjX=0, AdjY=1)
    scores = graph.add_node("SOFTMAX", [scores], name, square, Beta=1)
    inner = (batch, heads, length, width)
    attended = graph.add_node("BATCH_MATMUL", [scores, values], f"{name}.attended", inner, AdjX=0, AdjY=0)
    attended = transposed(f"{name}.attended", attended, (batch, length, heads, width))
    joined = reshaped(f"{name}.attended", attended, (batch, length, channels))
    return dense(f"{name}.out", joined, *(graph.weights[f"{name}.out.{field}"] for field in ("weight", "bias")))
