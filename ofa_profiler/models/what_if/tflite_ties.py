"""Which sizes the operators of TFLite tie together: channels come last. Kinds that are not listed keep all shapes."""

from __future__ import annotations

from collections.abc import Callable

from ofa_profiler.models.what_if.base import Axis, Net, Node, Ties, ties_of_axes, ties_of_elementwise

#: Operators whose weights have channels as first (out) and last axis (in).
WEIGHTED = ("CONV_2D", "FULLY_CONNECTED")
_POOLS = {"AVERAGE_POOL_2D", "MAX_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"}
_ELEMENTWISE = {
    *("ABS", "ADD", "CAST", "DEQUANTIZE", "DIV", "ELU", "EXP", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC"),
    *("MAXIMUM", "MINIMUM", "MUL", "NEG", "POW", "PRELU", "QUANTIZE", "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1"),
    *("RSQRT", "SOFTMAX", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SUB", "TANH"),
}


def ties_of_node(net: Net, node: Node) -> Ties | None:
    """The ties of an operator; None if its tensors must keep their shapes."""
    if node.kind in _ELEMENTWISE:
        return ties_of_elementwise(net, node)
    shape = net.shape(node.inputs[0]) if node.inputs and node.inputs[0] else None
    if shape is None or not node.outputs:
        return None
    if node.kind in _POOLS:
        return ties_of_axes(node, [(0, 0), (3, 3)])
    return _TIES[node.kind](net, node) if node.kind in _TIES else None


def _shape(net: Net, name: str) -> tuple[int, ...]:
    return net.shape(name) or ()


def _bias(net: Net, node: Node) -> list[Axis]:
    return [(name, 0) for name in node.given[2:3] if len(_shape(net, name)) == 1]


def _conv(net: Net, node: Node) -> Ties | None:
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if len(_shape(net, weight)) != 4 or _shape(net, x)[-1] != _shape(net, weight)[-1]:  # in groups
        return None
    return Ties((((x, 0), (y, 0)), ((x, 3), (weight, 3)), ((y, 3), (weight, 0), *_bias(net, node))))


def _depthwise(net: Net, node: Node) -> Ties | None:
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if _shape(net, x)[-1] != _shape(net, weight)[-1]:  # several kernels per channel
        return None
    return Ties((((x, 0), (y, 0)), ((x, 3), (y, 3), (weight, 3), *_bias(net, node))), ((weight, 0),))


def _fully_connected(net: Net, node: Node) -> Ties | None:
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    shape, output, sizes = _shape(net, x), _shape(net, y), _shape(net, weight)
    if len(sizes) != 2 or len(shape) != len(output) or shape[-1] != sizes[1]:
        return None
    last = len(shape) - 1
    leading = tuple(((x, i), (y, i)) for i in range(last))
    return Ties((*leading, ((x, last), (weight, 1)), ((y, last), (weight, 0), *_bias(net, node))))


def _reduce(net: Net, node: Node) -> Ties | None:
    axes, rank = net.constant(node.inputs[1]), len(_shape(net, node.inputs[0]))
    if axes is None:
        return None
    gone = {int(axis) % rank for axis in axes.reshape(-1)}
    stay = [i for i in range(rank) if i not in gone]
    keeps = len(_shape(net, node.outputs[0])) == rank
    return ties_of_axes(node, [(axis, axis if keeps else i) for i, axis in enumerate(stay)])


def _pad(net: Net, node: Node) -> Ties | None:
    amounts, shape = net.constant(node.inputs[1]), _shape(net, node.inputs[0])
    if amounts is None or amounts.shape != (len(shape), 2):
        return None
    alike = [(i, i) for i in range(len(shape)) if not amounts[i].any()]
    return ties_of_axes(node, alike)


def _transpose(net: Net, node: Node) -> Ties | None:
    order = net.constant(node.inputs[1])
    return None if order is None else ties_of_axes(node, [(int(axis), i) for i, axis in enumerate(order)])


def _concat(net: Net, node: Node) -> Ties | None:
    rank = len(_shape(net, node.inputs[0]))
    along = node.raw.builtinOptions.axis % rank
    every = (*node.inputs, node.outputs[0])
    equal = tuple(tuple((name, i) for name in every) for i in range(rank) if i != along)
    return Ties(equal, tuple((name, along) for name in every))


_TIES: dict[str, Callable[[Net, Node], Ties | None]] = {
    "CONCATENATION": _concat,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "MEAN": _reduce,
    "PAD": _pad,
    "PADV2": _pad,
    "TRANSPOSE": _transpose,
}
