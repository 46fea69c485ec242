"""TFLite files that can be edited. Tensors are known by their index, since their names need not be unique."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ofa_profiler.models.base import Array, TimedModel
from ofa_profiler.models.names import printable
from ofa_profiler.models.tflite_file import UNPACKING, kind_of, listed, schema
from ofa_profiler.models.tflite_runtime import outputs_of, prepared, reasons
from ofa_profiler.models.tflite_writing import buffer_of, code_index, packed, stored_values
from ofa_profiler.models.what_if.activations import exact_gelu, tanh_gelu
from ofa_profiler.models.what_if.base import Axis, Depthwise, Editor, Net, Node, Ties, repeated
from ofa_profiler.models.what_if.tflite_ties import WEIGHTED, ties_of_node
from ofa_profiler.networks.tensors import Shape

_SAME = 0
#: It has 8-bit integers.
_RELU_VERSION = 2
_DEPTHWISE = "DEPTHWISE_CONV_2D"
_PADS = ("PAD", "PADV2")


class TfliteNet(Net):
    """The primary graph of a TFLite file with shapes for certain feeds."""

    def __init__(self, model: TimedModel, feeds: Mapping[str, Array]) -> None:
        self.feeds = dict(feeds)
        self.bytes = model.data
        self.api = schema()
        self.model = self.api.ModelT.InitFromPackedBuf(model.data, 0)
        graph = self.model.subgraphs[0]
        self.tensors = list(graph.tensors)
        self.nodes = tuple(self._node(i, raw) for i, raw in enumerate(graph.operators))
        self.kept = frozenset(map(_name, (*graph.inputs, *graph.outputs)))

    def _node(self, i: int, raw: Any) -> Node:
        kind = kind_of(self.api, self.model.operatorCodes[raw.opcodeIndex])
        inputs, outputs = listed(raw.inputs), listed(raw.outputs)
        title = (self.tensors[outputs[-1]].name or b"").decode("utf-8", "replace") if outputs else ""
        return Node(i, kind, printable(title) or kind, tuple(map(_name, inputs)), tuple(map(_name, outputs)), raw)

    def tensor(self, name: str) -> Any:
        """The schema's object."""
        return self.tensors[int(name)]

    def stored(self, name: str) -> Array | None:
        """The values of a constant as they are in the file."""
        return stored_values(self.api, self.model, self.tensor(name))

    def constant(self, tensor: str) -> Array | None:
        if tensor in self.maker and self.maker[tensor].kind in UNPACKING:
            return self.constant(self.maker[tensor].inputs[0])
        values, scales = self.stored(tensor), self.tensor(tensor).quantization
        if values is None or scales is None or scales.scale is None or len(scales.scale) != 1:
            return values
        return np.asarray((values.astype(float) - scales.zeroPoint[0]) * scales.scale[0])

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        interpreter = prepared(self.bytes, self.feeds)
        found = {_name(each["index"]): tuple(map(int, each["shape"])) for each in interpreter.get_tensor_details()}
        return {name: found[name] for name in map(_name, range(len(self.tensors))) if name in found}

    def shape(self, tensor: str) -> Shape | None:
        values = self.stored(tensor)
        return self._shapes.get(tensor) if values is None else values.shape

    def function(self, node: Node) -> Callable[..., Array] | None:
        make = _FUNCTIONS.get(node.kind)
        if make is None:
            return None
        function = make(node.raw.builtinOptions)
        clamp = _CLAMPS.get(getattr(node.raw.builtinOptions, "fusedActivationFunction", 0))
        if clamp is None:
            return None
        return lambda *values: np.clip(function(*values), *clamp)

    def weight(self, tensor: str) -> str | None:
        """The constant that a tensor is, or is unpacked from."""
        while tensor in self.maker and self.maker[tensor].kind in UNPACKING:
            tensor = self.maker[tensor].inputs[0]
        return tensor if self.stored(tensor) is not None else None

    def depthwise(self, node: Node) -> Depthwise | None:
        if node.kind != _DEPTHWISE:
            return None
        weight, options = self.weight(node.inputs[1]), node.raw.builtinOptions
        shape = self.shape(weight) if weight is not None else None
        x = self.shape(node.inputs[0])
        if weight is None or shape is None or x is None or shape[-1] != x[-1] or shape[1] != shape[2]:
            return None
        if options.padding != _SAME and self.padding(node) is None:
            return None
        found = {name: value for name, value in vars(options).items() if not isinstance(value, bytes)}
        return Depthwise(weight, shape[1], f"{shape} {sorted(found.items())}")

    def padding(self, node: Node) -> str | None:
        """The constant with the padding of the operator before a convolution, if it can be reduced."""
        before = self.maker.get(node.inputs[0])
        if before is None or before.kind not in _PADS or node.inputs[0] in self.kept:
            return None
        values, options = self.stored(before.inputs[1]), node.raw.builtinOptions
        alone = len(self.users[node.inputs[0]]) == len(self.users[before.inputs[1]]) == 1
        least = [[options.dilationHFactor] * 2, [options.dilationWFactor] * 2]
        if not alone or values is None or values.shape != (4, 2) or (values[1:3] < least).any():
            return None
        return before.inputs[1]

    def channel_axes(self, node: Node) -> tuple[Axis, ...]:
        weight = self.weight(node.inputs[1]) if node.kind in WEIGHTED else None
        shape = self.shape(weight) if weight is not None else None
        return ((weight, 0), (weight, len(shape) - 1)) if weight is not None and shape else ()

    def ties(self, node: Node) -> Ties | None:
        return ties_of_node(self, node)

    def edit(self) -> Editor:
        return _TfliteEditor(self)

    def output_shapes(self, data: bytes) -> dict[str, Shape]:
        with reasons("the network"):
            interpreter = prepared(data, self.feeds)
            interpreter.invoke()
            return {name: values.shape for name, values in outputs_of(interpreter).items()}


class _TfliteEditor(Editor):
    def __init__(self, net: TfliteNet) -> None:
        self.net = net
        self.model = net.api.ModelT.InitFromPackedBuf(net.bytes, 0)
        self.graph = self.model.subgraphs[0]
        self.operators = list(self.graph.operators)
        self.removed: set[int] = set()

    def replace_by_relu(self, nodes: Sequence[Node], x: str, y: str) -> None:
        last = max(node.index for node in nodes)
        self.removed.update(node.index for node in nodes if node.index != last)
        operator = self.operators[last]
        operator.opcodeIndex = code_index(self.net.api, self.model, "RELU", _RELU_VERSION)
        operator.inputs, operator.outputs, operator.intermediates = [int(x)], [int(y)], None
        operator.builtinOptions, operator.builtinOptionsType = None, 0
        operator.customOptions, operator.mutatingVariableInputs = None, None

    def shrink_kernel(self, node: Node) -> None:
        weight = self.net.weight(node.inputs[1])
        values = self.net.stored(weight) if weight is not None else None
        assert weight is not None
        assert values is not None
        self._set(weight, values[:, 1:-1, 1:-1, :])
        if node.inputs[1] != weight:  # an unpacked tensor states its shape, too
            self._state_shape(node.inputs[1], (1, values.shape[1] - 2, values.shape[2] - 2, values.shape[3]))
        options = node.raw.builtinOptions
        if options.padding != _SAME:
            padding = self.net.padding(node)
            before = self.net.stored(padding) if padding is not None else None
            assert padding is not None
            assert before is not None
            border = np.array([0, options.dilationHFactor, options.dilationWFactor, 0], before.dtype)[:, None]
            self._set(padding, before - border)
            padded = np.array(self.net.shape(node.inputs[0])) - 2 * border[:, 0]
            self._state_shape(node.inputs[0], tuple(map(int, padded)))

    def resize(self, axes: Sequence[Axis], size: int) -> None:
        for name, axis in axes:
            tensor = self.graph.tensors[int(name)]
            values = stored_values(self.net.api, self.model, tensor)
            if values is not None:
                self._set(name, repeated(values, axis, size))
            else:
                self._state_shape(name, tuple(size if i == axis else n for i, n in enumerate(tensor.shape)))
            _resize_scales(tensor.quantization, axis, size)

    def _set(self, name: str, values: Array) -> None:
        tensor = self.graph.tensors[int(name)]
        # Equal constants can share a buffer.
        self.model.buffers = [*self.model.buffers, buffer_of(self.net.api, values)]
        tensor.buffer = len(self.model.buffers) - 1
        self._state_shape(name, values.shape)

    def _state_shape(self, name: str, shape: Shape) -> None:
        tensor = self.graph.tensors[int(name)]
        if tensor.shapeSignature is not None and len(tensor.shapeSignature) == len(shape):
            pairs = zip(tensor.shapeSignature, shape, strict=True)
            tensor.shapeSignature = [-1 if signed < 0 else size for signed, size in pairs]
        tensor.shape = list(shape)

    def data(self) -> bytes:
        self.graph.operators = [each for i, each in enumerate(self.operators) if i not in self.removed]
        return packed(self.net.api, self.model)


def _resize_scales(quantization: Any, axis: int, size: int) -> None:
    """Of weights with a scale per channel."""
    scales = None if quantization is None else quantization.scale
    if scales is None or len(scales) < 2 or quantization.quantizedDimension != axis:
        return
    quantization.scale = repeated(np.asarray(scales), 0, size)
    quantization.zeroPoint = repeated(np.asarray(quantization.zeroPoint), 0, size)
    quantization.min = quantization.max = None


def _name(i: int) -> str:
    return str(int(i)) if i >= 0 else ""


#: Fused activations -> the bounds to which they clamp.
_CLAMPS: dict[int, tuple[float, float]] = {
    0: (-np.inf, np.inf),
    1: (0.0, np.inf),
    2: (-1.0, 1.0),
    3: (0.0, 6.0),
}


def _always(function: Callable[..., Any]) -> Callable[[Any], Callable[..., Array]]:
    return lambda _: function


#: Kind of operator -> from its options to what it computes.
_FUNCTIONS: dict[str, Callable[[Any], Callable[..., Array]]] = {
    "ADD": _always(np.add),
    "DIV": _always(np.divide),
    "EXP": _always(np.exp),
    "GELU": lambda options: tanh_gelu if options.approximate else exact_gelu,
    "HARD_SWISH": _always(lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0)),
    "LOGISTIC": _always(lambda x: 1.0 / (1.0 + np.exp(-x))),
    "MAXIMUM": _always(np.maximum),
    "MINIMUM": _always(np.minimum),
    "MUL": _always(np.multiply),
    "NEG": _always(np.negative),
    "POW": _always(np.power),
    "RELU": _always(lambda x: np.maximum(x, 0.0)),
    "RELU6": _always(lambda x: np.clip(x, 0.0, 6.0)),
    "RELU_0_TO_1": _always(lambda x: np.clip(x, 0.0, 1.0)),
    "SQUARE": _always(np.square),
    "SUB": _always(np.subtract),
    "TANH": _always(np.tanh),
}
