"""Multiply-accumulates of ONNX operators, those that onnxruntime adds included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from ofa_profiler.models.onnx_graph import integer

if TYPE_CHECKING:
    import onnx

#: Shape of each tensor of a model that is known.
Shapes = Mapping[str, Sequence[int]]

#: Operator -> the position of its weights.
_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
#: Operator -> the position of the second matrix.
_PRODUCTS = {
    "MatMul": 1,
    "Gemm": 1,
    "FusedGemm": 1,
    "FusedMatMul": 1,
    "FusedMatMulActivation": 1,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
    "QLinearMatMul": 3,
    "QGemm": 3,
}
_RECURRENT = ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM")


def node_macs(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Multiply-accumulates of a node; 0 for operators without any, or of unknown shapes."""
    kind = node.op_type
    count: Callable[[onnx.NodeProto, Shapes], int] | None = None
    if kind in _CONVOLUTIONS:
        count = _convolution
    elif kind in _PRODUCTS:
        count = _product
    elif kind in _RECURRENT:
        count = _recurrent
    else:
        count = {"ConvTranspose": _transposed, "MatMulNBits": _blocks, "Attention": _attention}.get(kind)
        count = _multi_head if kind in ("MultiHeadAttention", "GroupQueryAttention") else count
        # ONNX has an operator of the same name as onnxruntime's, with other inputs.
        count = _standard_attention if kind == "Attention" and node.domain in ("", "ai.onnx") else count
    try:
        return 0 if count is None else count(node, shapes)
    except (KeyError, IndexError, ValueError):  # an operator without its usual inputs
        return 0


def layer_name(node: onnx.NodeProto, shapes: Shapes) -> str:
    """What people call a node: `Conv` for `FusedConv`, `DepthwiseConv` if each channel has a kernel of its own."""
    plain = node.op_type.removeprefix("Nhwc").removeprefix("Fused")
    if plain in ("Conv", "QLinearConv") and integer(node, "group") > 1:
        weights = shapes.get(node.input[_CONVOLUTIONS[node.op_type]], ())
        return f"Depthwise{plain}" if len(weights) > 1 and weights[1] == 1 else f"Grouped{plain}"
    return plain


def _convolution(node: onnx.NodeProto, shapes: Shapes) -> int:
    weights, output = shapes[node.input[_CONVOLUTIONS[node.op_type]]], shapes[node.output[0]]
    channels_last = node.op_type == "NhwcFusedConv" or integer(node, "channels_last")
    places = prod(output[1:-1]) if channels_last else prod(output[2:])
    return output[0] * places * prod(weights)


def _transposed(node: onnx.NodeProto, shapes: Shapes) -> int:
    given, weights = shapes[node.input[0]], shapes[node.input[1]]
    return given[0] * prod(given[2:]) * prod(weights)


def _product(node: onnx.NodeProto, shapes: Shapes) -> int:
    first, second = shapes[node.input[0]], shapes[node.input[_PRODUCTS[node.op_type]]]
    if len(first) == 1:
        return prod(second)
    depth = first[-2] if integer(node, "transA") else first[-1]
    return prod(shapes[node.output[0]]) * depth


def _blocks(node: onnx.NodeProto, shapes: Shapes) -> int:
    return prod(shapes[node.output[0]]) * integer(node, "K")


def _recurrent(node: onnx.NodeProto, shapes: Shapes) -> int:
    steps, batch = shapes[node.input[0]][:2]
    return steps * batch * (prod(shapes[node.input[1]]) + prod(shapes[node.input[2]]))


def _attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    batch, length, _ = shapes[node.input[0]]
    weights = shapes[node.input[1]]
    return batch * length * prod(weights) + 2 * batch * length * length * (weights[-1] // 3)


def _standard_attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Products of queries with keys, and of their weights with values. Shapes have heads, or these are attributes."""
    queries, keys, values = (shapes[name] for name in node.input[:3])
    heads = queries[1] if len(queries) == 4 else integer(node, "q_num_heads")
    kept = heads if len(keys) == 4 else integer(node, "kv_num_heads")
    depth = queries[-1] if len(queries) == 4 else queries[-1] // max(heads, 1)
    width = values[-1] if len(values) == 4 else values[-1] // max(kept, 1)
    past = shapes[node.input[4]][-2] if len(node.input) > 4 and node.input[4] else 0
    return queries[0] * heads * queries[-2] * (keys[-2] + past) * (depth + width)


def _multi_head(node: onnx.NodeProto, shapes: Shapes) -> int:
    batch, length, width = shapes[node.input[0]][:3]
    keys = shapes[node.input[1]][-2] if node.input[1] else length
    return 2 * batch * length * keys * width
