"""Which sizes the operators of ONNX tie together. Kinds that are not listed keep all shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from ofa_profiler.models.what_if.base import Axis, Net, Node, Ties, ties_of_axes, ties_of_elementwise

_Attributes = Mapping[str, Any]
#: They leave batch and channels alone, and compute along the other axes.
_POOLS = {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}
_ELEMENTWISE = {
    *("Abs", "Add", "Cast", "Clip", "Div", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish"),
    *("Identity", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "QuickGelu", "Reciprocal"),
    *("Relu", "Sigmoid", "Softmax", "Softplus", "Sqrt", "Sub", "Sum", "Tanh"),
}


def ties_of_node(net: Net, node: Node, attributes: _Attributes) -> Ties | None:
    """The ties of a node; None if its tensors must keep their shapes."""
    if node.kind in _ELEMENTWISE:
        return ties_of_elementwise(net, node)
    shape = net.shape(node.inputs[0]) if node.inputs else None
    if shape is None or not node.outputs:
        return None
    if node.kind in _POOLS:
        return ties_of_axes(node, [(0, 0), (1, 1)])
    return _TIES[node.kind](net, node, attributes) if node.kind in _TIES else None


def _shape(net: Net, name: str) -> tuple[int, ...]:
    return net.shape(name) or ()


def _conv(net: Net, node: Node, attributes: _Attributes) -> Ties | None:
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    group, shape = attributes.get("group", 1), _shape(net, weight)
    bias = [(name, 0) for name in node.given[2:]]
    batch = ((x, 0), (y, 0))
    if group == 1:
        return Ties((batch, ((x, 1), (weight, 1)), ((y, 1), (weight, 0), *bias)))
    if shape[:2] == (group, 1):  # depthwise
        return Ties((batch, ((x, 1), (y, 1), (weight, 0), *bias)), ((weight, 1),))
    return Ties((batch,), ((x, 1), (y, 1), (weight, 0), (weight, 1), *bias))


def _gemm(net: Net, node: Node, attributes: _Attributes) -> Ties | None:
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if attributes.get("transA", 0):
        return None
    inner = 1 if attributes.get("transB", 0) else 0
    bias = [(name, len(_shape(net, name)) - 1) for name in node.given[2:] if _shape(net, name)]
    alike = [axis for axis in bias if _shape(net, axis[0])[-1] != 1]
    return Ties((((x, 0), (y, 0)), ((x, 1), (weight, inner)), ((y, 1), (weight, 1 - inner), *alike)))


def _matmul(net: Net, node: Node, _: _Attributes) -> Ties | None:
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    rank = len(_shape(net, x))
    if len(_shape(net, weight)) != 2 or rank < 2:
        return None
    leading = tuple(((x, i), (y, i)) for i in range(rank - 1))
    return Ties((*leading, ((x, rank - 1), (weight, 0)), ((y, rank - 1), (weight, 1))))


def _batch_norm(net: Net, node: Node, _: _Attributes) -> Ties | None:
    x, y = node.inputs[0], node.outputs[0]
    alone = [(i, i) for i in range(len(_shape(net, x))) if i != 1]
    return Ties((*ties_of_axes(node, alone).equal, ((x, 1), (y, 1), *((name, 0) for name in node.inputs[1:5]))))


def _layer_norm(net: Net, node: Node, attributes: _Attributes) -> Ties | None:
    x, y = node.inputs[0], node.outputs[0]
    last = len(_shape(net, x)) - 1
    if attributes.get("axis", -1) not in (-1, last):
        return None
    alone = ties_of_axes(node, [(i, i) for i in range(last)]).equal
    return Ties((*alone, ((x, last), (y, last), *((name, 0) for name in node.given[1:]))))


def _resize(net: Net, node: Node, _: _Attributes) -> Ties | None:
    """By scales only: sizes contain that of the channels."""
    sizes = node.inputs[3] if len(node.inputs) > 3 else ""
    scales = net.constant(node.inputs[2] if len(node.inputs) > 2 else node.inputs[-1])
    if sizes or scales is None or scales.size < 2 or tuple(scales[:2]) != (1.0, 1.0):
        return None
    return ties_of_axes(node, [(0, 0), (1, 1)])


def _reduce(net: Net, node: Node, attributes: _Attributes) -> Ties | None:
    rank = len(_shape(net, node.inputs[0]))
    given = net.constant(node.inputs[1]) if len(node.inputs) > 1 else attributes.get("axes")
    if given is None:
        return None
    gone = {int(axis) % rank for axis in given}
    stay = [i for i in range(rank) if i not in gone]
    keeps = attributes.get("keepdims", 1)
    return ties_of_axes(node, [(axis, axis if keeps else i) for i, axis in enumerate(stay)])


def _flatten(net: Net, node: Node, _: _Attributes) -> Ties | None:
    """Of pooled channels: N x C x 1 x 1 to N x C. A Reshape must not name their number."""
    shape = _shape(net, node.inputs[0])
    output = _shape(net, node.outputs[0])
    if len(shape) < 3 or prod(shape[2:]) != 1 or output != shape[:2]:
        return None
    if node.kind == "Reshape":
        target = net.constant(node.inputs[1])
        if target is None or target.tolist()[1] not in (-1, 0):
            return None
    return ties_of_axes(node, [(0, 0), (1, 1)])


def _transpose(net: Net, node: Node, attributes: _Attributes) -> Ties | None:
    order = attributes.get("perm") or list(reversed(range(len(_shape(net, node.inputs[0])))))
    return ties_of_axes(node, [(axis, i) for i, axis in enumerate(order)])


def _concat(net: Net, node: Node, attributes: _Attributes) -> Ties | None:
    rank = len(_shape(net, node.inputs[0]))
    along = attributes.get("axis", 0) % rank
    every = (*node.inputs, node.outputs[0])
    equal = tuple(tuple((name, i) for name in every) for i in range(rank) if i != along)
    return Ties(equal, tuple((name, along) for name in every))


def _quantize(net: Net, node: Node, attributes: _Attributes) -> Ties | None:
    x, y = node.inputs[0], node.outputs[0]
    shape = _shape(net, x)
    if attributes.get("block_size", 0):
        return None
    axis = attributes.get("axis", 1) % max(1, len(shape))
    per_axis: list[Axis] = [(name, 0) for name in node.given[1:] if _shape(net, name) and _shape(net, name)[0] > 1]
    return Ties(tuple(((x, i), (y, i), *(per_axis if i == axis else ())) for i in range(len(shape))))


_TIES: dict[str, Callable[[Net, Node, _Attributes], Ties | None]] = {
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Conv": _conv,
    "DequantizeLinear": _quantize,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "QuantizeLinear": _quantize,
    "ReduceMean": _reduce,
    "Reshape": _flatten,
    "Resize": _resize,
    "Squeeze": _flatten,
    "Transpose": _transpose,
    "Upsample": _resize,
}
