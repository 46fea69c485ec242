"""ONNX files that can be edited. The file is edited, so onnxruntime optimizes the original and the edited network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ofa_profiler.models.base import Array, TimedModel
from ofa_profiler.models.names import printable
from ofa_profiler.models.onnx_graph import attributes, is_standard, used_by, used_inside
from ofa_profiler.models.onnx_session import run, session
from ofa_profiler.models.what_if.activations import error_function, exact_gelu, tanh_gelu
from ofa_profiler.models.what_if.base import Axis, Depthwise, Editor, Net, Node, Ties, repeated
from ofa_profiler.models.what_if.onnx_ties import ties_of_node
from ofa_profiler.networks.tensors import Shape

_PRODUCTS = {"Conv", "Gemm", "MatMul"}
#: What unpacks weights: the constant before it has the same axes.
_UNPACKING = {"Cast", "DequantizeLinear", "Identity"}


class OnnxNet(Net):
    """An ONNX file with shapes for certain feeds."""

    def __init__(self, model: TimedModel, feeds: Mapping[str, Array]) -> None:
        import onnx

        self.feeds = dict(feeds)
        self.proto = onnx.load_from_string(model.data)
        _constants_to_initializers(self.proto)
        graph = self.proto.graph
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes = tuple(
            Node(i, raw.op_type, _place(raw), tuple(raw.input), tuple(name for name in raw.output if name), raw)
            for i, raw in enumerate(graph.node)
        )
        ends = {value.name for value in (*graph.input, *graph.output)}
        self.kept = frozenset(ends | {name for raw in graph.node for name in used_inside(raw)})
        self._values: dict[str, Array] = {}

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        import onnx

        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        for value in proto.graph.input:
            if value.name in self.feeds:
                del value.type.tensor_type.shape.dim[:]
                for size in self.feeds[value.name].shape:
                    value.type.tensor_type.shape.dim.add().dim_value = size
        del proto.graph.value_info[:]
        graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
        found: dict[str, Shape] = {name: tuple(tensor.dims) for name, tensor in self.initializers.items()}
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.tensor_type
            if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
                found[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
        return found

    def constant(self, tensor: str) -> Array | None:
        from onnx import numpy_helper

        if tensor not in self.initializers:
            return None
        if tensor not in self._values:
            self._values[tensor] = numpy_helper.to_array(self.initializers[tensor])
        return self._values[tensor]

    def shape(self, tensor: str) -> Shape | None:
        return self._shapes.get(tensor)

    def function(self, node: Node) -> Callable[..., Array] | None:
        return _FUNCTIONS[node.kind](attributes(node.raw)) if node.kind in _FUNCTIONS else None

    def weight(self, tensor: str) -> str | None:
        """The constant that a tensor is, or is unpacked from."""
        while tensor in self.maker and self.maker[tensor].kind in _UNPACKING:
            tensor = self.maker[tensor].inputs[0]
        return tensor if tensor in self.initializers else None

    def depthwise(self, node: Node) -> Depthwise | None:
        if node.kind != "Conv" or not is_standard(node.raw):
            return None
        found, weight = attributes(node.raw), self.weight(node.inputs[1])
        shape = self.shape(weight) if weight is not None else None
        if weight is None or shape is None or shape[1] != 1 or found.get("group", 1) != shape[0]:
            return None
        rank = len(shape) - 2
        pads, dilations = found.get("pads", [0] * 2 * rank), found.get("dilations", [1] * rank)
        if len(set(shape[2:])) != 1:
            return None
        if found.get("auto_pad", b"NOTSET") == b"NOTSET" and min(np.subtract(pads, [*dilations, *dilations])) < 0:
            return None  # the output would grow
        return Depthwise(weight, shape[2], f"{shape} {sorted(found.items())}")

    def channel_axes(self, node: Node) -> tuple[Axis, ...]:
        weight = self.weight(node.inputs[1]) if node.kind in _PRODUCTS else None
        return ((weight, 0), (weight, 1)) if weight is not None else ()

    def ties(self, node: Node) -> Ties | None:
        if not is_standard(node.raw):
            return None
        return ties_of_node(self, node, attributes(node.raw))

    def edit(self) -> Editor:
        return _OnnxEditor(self)

    def output_shapes(self, data: bytes) -> dict[str, Shape]:
        opened = session(data)
        names = [output.name for output in opened.get_outputs()]
        return {name: np.shape(value) for name, value in run(opened, self.feeds, names).items()}


class _OnnxEditor(Editor):
    def __init__(self, net: OnnxNet) -> None:
        import onnx

        self.net = net
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(net.proto)
        del self.proto.graph.value_info[:]
        self.raw = list(self.proto.graph.node)
        self.initializers = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        self.removed: set[int] = set()

    def replace_by_relu(self, nodes: Sequence[Node], x: str, y: str) -> None:
        import onnx

        last = max(node.index for node in nodes)
        self.removed.update(node.index for node in nodes if node.index != last)
        self.raw[last].CopyFrom(onnx.helper.make_node("Relu", [x], [y], self.raw[last].name))

    def shrink_kernel(self, node: Node) -> None:
        weight = self.net.weight(node.inputs[1])
        values = self.net.constant(weight) if weight is not None else None
        assert weight is not None
        assert values is not None
        self._set(weight, values[(slice(None), slice(None), *[slice(1, -1)] * (values.ndim - 2))])
        rank = values.ndim - 2
        for attribute in self.raw[node.index].attribute:
            if attribute.name == "kernel_shape":
                attribute.ints[:] = [size - 2 for size in values.shape[2:]]
            elif attribute.name == "pads":
                dilations = attributes(node.raw).get("dilations", [1] * rank)
                attribute.ints[:] = np.subtract(attribute.ints, [*dilations, *dilations]).tolist()

    def resize(self, axes: Sequence[Axis], size: int) -> None:
        from onnx import numpy_helper

        for name, axis in axes:
            if name in self.initializers:
                self._set(name, repeated(numpy_helper.to_array(self.initializers[name]), axis, size))
        first = {name for name, axis in axes if axis == 0}
        for node in self.net.nodes:
            if node.kind == "Conv" and node.inputs[1] in first:
                for attribute in self.raw[node.index].attribute:
                    if attribute.name == "group" and attribute.i > 1:
                        attribute.i = size

    def _set(self, name: str, values: Array) -> None:
        from onnx import numpy_helper

        self.initializers[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))

    def data(self) -> bytes:
        kept = [raw for i, raw in enumerate(self.raw) if i not in self.removed]
        copies = [type(raw).FromString(raw.SerializeToString()) for raw in kept]
        del self.proto.graph.node[:]
        self.proto.graph.node.extend(copies)
        # onnxruntime warns of those that nobody reads any more.
        gone = {name for i in self.removed for name in self.net.nodes[i].given}
        gone |= {name for i, raw in enumerate(self.raw) for name in {*self.net.nodes[i].given} - {*raw.input}}
        gone -= {name for raw in copies for name in used_by(raw)} | self.net.kept
        for name in gone & self.initializers.keys():
            self.proto.graph.initializer.remove(self.initializers[name])
        return bytes(self.proto.SerializeToString())


def _constants_to_initializers(proto: Any) -> None:
    """Tensors in Constant nodes become initializers. onnxruntime does the same when it loads a file."""
    for raw in [raw for raw in proto.graph.node if raw.op_type == "Constant"]:
        if len(raw.attribute) == 1 and raw.attribute[0].name == "value":
            tensor = proto.graph.initializer.add()
            tensor.CopyFrom(raw.attribute[0].t)
            tensor.name = raw.output[0]
            proto.graph.node.remove(raw)


def _place(raw: Any) -> str:
    """A name on one line; its last part tells the most."""
    name = raw.name or next(iter(raw.output), "") or raw.op_type
    return printable(name) or str(raw.op_type)


def _clip(found: Mapping[str, Any]) -> Callable[..., Array]:
    lowest, highest = found.get("min"), found.get("max")

    def clip(x: Array, low: float | None = lowest, high: float | None = highest) -> Array:
        return np.clip(x, -np.inf if low is None else low, np.inf if high is None else high)

    return clip


def _hard_sigmoid(found: Mapping[str, Any]) -> Callable[..., Array]:
    alpha, beta = found.get("alpha", 0.2), found.get("beta", 0.5)
    return lambda x: np.clip(alpha * x + beta, 0.0, 1.0)


def _gelu(found: Mapping[str, Any]) -> Callable[..., Array]:
    return tanh_gelu if found.get("approximate") == b"tanh" else exact_gelu


def _always(function: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Callable[..., Array]]:
    return lambda _: function


#: Kind of node -> from its attributes to what it computes.
_FUNCTIONS: dict[str, Callable[[Mapping[str, Any]], Callable[..., Array]]] = {
    "Add": _always(np.add),
    "Clip": _clip,
    "Div": _always(np.divide),
    "Erf": _always(error_function),
    "Exp": _always(np.exp),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _always(lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0)),
    "Log": _always(np.log),
    "Max": _always(np.maximum),
    "Min": _always(np.minimum),
    "Mish": _always(lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    "Mul": _always(np.multiply),
    "Neg": _always(np.negative),
    "Pow": _always(np.power),
    "QuickGelu": lambda found: lambda x: x / (1.0 + np.exp(-found.get("alpha", 1.702) * x)),
    "Relu": _always(lambda x: np.maximum(x, 0.0)),
    "Sigmoid": _always(lambda x: 1.0 / (1.0 + np.exp(-x))),
    "Softplus": _always(lambda x: np.log1p(np.exp(x))),
    "Sqrt": _always(np.sqrt),
    "Sub": _always(np.subtract),
    "Tanh": _always(np.tanh),
}
