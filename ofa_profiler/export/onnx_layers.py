"""The ONNX nodes of each layer type. BatchNorm is folded, and activations are single operators, which can be fused."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from ofa_profiler.export.onnx_graph import OnnxGraph
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
from ofa_profiler.networks.layers.tables import ONNX_LAYERS
from ofa_profiler.networks.parameters import folded_conv
from ofa_profiler.networks.tensors import Span

#: Below and above these inputs, a hard sigmoid is 0 and 1.
HARD_SIGMOID_RELEVANT = Span(-3.0, 3.0)
#: The opset that introduced LayerNormalization.
_LAYER_NORM_SINCE = 17


@ONNX_LAYERS.register(Conv)
def _conv(graph: OnnxGraph, layer: Conv, name: str, tensor: str) -> str:
    weight, bias = folded_conv(layer, name, graph.weights)
    tensor = graph.add_conv(name, tensor, weight, bias, layer.stride, layer.groups)
    return graph.add_activation(name, layer.activation, tensor)


@ONNX_LAYERS.register(SqueezeExcite)
def _squeeze_excite(graph: OnnxGraph, _layer: SqueezeExcite, name: str, tensor: str) -> str:
    return graph.add_node("Mul", [tensor, add_gate(graph, name, tensor)], name)


def add_gate(graph: OnnxGraph, name: str, tensor: str) -> str:
    """Add the gate of a squeeze-excite, (N, C, 1, 1)."""

    def conv(part: str, source: str) -> str:
        weight, bias = (graph.weights[f"{name}.{part}.{field}"] for field in ("weight", "bias"))
        return graph.add_conv(f"{name}.{part}", source, weight, bias)

    gate = graph.add_node("GlobalAveragePool", [tensor], name)
    graph.marks.add(gate, f"{name}.mean")
    gate = graph.add_activation(f"{name}.reduce", "relu", conv("reduce", gate))
    graph.marks.add(gate, f"{name}.reduce")
    gate = conv("expand", gate)
    graph.marks.add(gate, f"{name}.expand", lambda span: span.clipped(HARD_SIGMOID_RELEVANT))
    return graph.add_node("HardSigmoid", [gate], f"{name}.expand", alpha=1 / 6, beta=0.5)


@ONNX_LAYERS.register(MaxPool)
def _max_pool(graph: OnnxGraph, _layer: MaxPool, name: str, tensor: str) -> str:
    return graph.add_node("MaxPool", [tensor], name, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)


@ONNX_LAYERS.register(AvgPool)
def _avg_pool(graph: OnnxGraph, _layer: AvgPool, name: str, tensor: str) -> str:
    return graph.add_node("AveragePool", [tensor], name, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)


@ONNX_LAYERS.register(GlobalPool)
def _global_pool(graph: OnnxGraph, _layer: GlobalPool, name: str, tensor: str) -> str:
    return graph.add_node("GlobalAveragePool", [tensor], name)


@ONNX_LAYERS.register(Linear)
def _linear(graph: OnnxGraph, _layer: Linear, name: str, tensor: str) -> str:
    flat = graph.add_node("Flatten", [tensor], name, axis=1)
    constants = [graph.add_parameter(f"{name}.{part}") for part in ("weight", "bias")]
    return graph.add_node("Gemm", [flat, *constants], name, transB=1)


@ONNX_LAYERS.register(Add)
def _add(graph: OnnxGraph, layer: Add, name: str, first: str, second: str) -> str:
    return graph.add_activation(name, layer.activation, graph.add_node("Add", [first, second], name))


@ONNX_LAYERS.register(LayerNorm)
def _layer_norm(graph: OnnxGraph, layer: LayerNorm, name: str, tensor: str) -> str:
    weight, bias = (graph.add_parameter(f"{name}.{part}") for part in ("weight", "bias"))
    if graph.opset >= _LAYER_NORM_SINCE:
        return graph.add_node("LayerNormalization", [tensor, weight, bias], name, axis=-1, epsilon=layer.epsilon)
    # onnxruntime fuses these nodes into its LayerNormalization.
    mean = graph.add_node("ReduceMean", [tensor], f"{name}.mean", axes=[-1], keepdims=1)
    centred = graph.add_node("Sub", [tensor, mean], name)
    square = graph.add_node("Pow", [centred, graph.add_scalar(f"{name}.two", 2)], name)
    variance = graph.add_node("ReduceMean", [square], f"{name}.variance", axes=[-1], keepdims=1)
    variance = graph.add_node("Add", [variance, graph.add_scalar(f"{name}.epsilon", layer.epsilon)], f"{name}.variance")
    scaled = graph.add_node("Div", [centred, graph.add_node("Sqrt", [variance], name)], name)
    return graph.add_node("Add", [graph.add_node("Mul", [scaled, weight], name), bias], name)


@ONNX_LAYERS.register(Gelu)
def _gelu(graph: OnnxGraph, _layer: Gelu, name: str, tensor: str) -> str:
    """onnxruntime fuses these nodes into its Gelu. ONNX has this operator only since opset 20."""

    scaled = graph.add_node("Div", [tensor, graph.add_scalar(f"{name}.root_of_two", sqrt(2))], name)
    shifted = graph.add_node("Add", [graph.add_node("Erf", [scaled], name), graph.add_scalar(f"{name}.one", 1)], name)
    product = graph.add_node("Mul", [tensor, shifted], name)
    return graph.add_node("Mul", [product, graph.add_scalar(f"{name}.half", 0.5)], f"{name}.half")


@ONNX_LAYERS.register(SelfAttention)
def _self_attention(graph: OnnxGraph, layer: SelfAttention, name: str, tensor: str) -> str:
    (length, channels), heads = graph.shapes[name], layer.heads
    width = channels // heads

    def dense(part: str, source: str, weight: Any, bias: Any) -> str:
        product = graph.add_node("MatMul", [source, graph.add_constant(f"{part}.weight", weight.T)], part)
        return graph.add_node("Add", [product, graph.add_constant(f"{part}.bias", bias)], part)

    def reshaped(part: str, source: str, *shape: int) -> str:
        return graph.add_node("Reshape", [source, graph.add_constant(f"{part}.shape", np.array(shape))], part)

    def by_head(index: int, part: str, perm: list[int]) -> str:
        rows = slice(index * channels, (index + 1) * channels)
        projected = dense(part, tensor, *(graph.weights[f"{name}.qkv.{field}"][rows] for field in ("weight", "bias")))
        split = reshaped(part, projected, graph.batch, length, heads, width)
        return graph.add_node("Transpose", [split], part, perm=perm)

    queries, values = by_head(0, f"{name}.queries", [0, 2, 1, 3]), by_head(2, f"{name}.values", [0, 2, 1, 3])
    keys = by_head(1, f"{name}.keys", [0, 2, 3, 1])
    scores = graph.add_node("MatMul", [queries, keys], f"{name}.scores")
    scale = graph.add_constant(f"{name}.scale", np.array(1 / sqrt(width), np.float32))
    scores = graph.add_node("Softmax", [graph.add_node("Mul", [scores, scale], f"{name}.scores")], name, axis=-1)
    attended = graph.add_node("MatMul", [scores, values], f"{name}.attended")
    attended = graph.add_node("Transpose", [attended], f"{name}.attended", perm=[0, 2, 1, 3])
    joined = reshaped(f"{name}.attended", attended, graph.batch, length, channels)
    return dense(f"{name}.out", joined, *(graph.weights[f"{name}.out.{field}"] for field in ("weight", "bias")))
