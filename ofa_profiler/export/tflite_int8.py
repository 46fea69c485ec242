"""Quantizes a TFLite graph: full integer, by TFLite's specification of 8-bit quantization.

The layers write a float32 graph (`tflite_layers.py`, `forms/`). Here each operator becomes its int8 version:
activations have a scale and a zero point, weights a scale per channel and values in [-127, 127], biases are int32.
`Ranges` give the spans of tensors. Those that are not there, such as inside a form, follow from the inputs of the
operator: exactly for a constant operand, as bounds for products of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.export import quantize
from ofa_profiler.export.quantize import Quantization
from ofa_profiler.export.tflite_file import Node, Tensor
from ofa_profiler.export.tflite_graph import FUSED, TfliteGraph
from ofa_profiler.networks.layers.activations import get_activation
from ofa_profiler.networks.parameters import Array
from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.networks.tensors import USUAL_SPAN, Span, TensorSpec

_ENTER, _LEAVE = "QUANTIZE", "DEQUANTIZE"


@dataclass(frozen=True)
class _Rule:
    """How an operator is quantized.

    `span`: of its output, from those of its inputs. `same_scale`: its output has the scale of its input. `weights`:
    inputs 1 and 2 are weights, with output channels along `axis`, and bias.
    """

    span: Callable[..., Span]
    same_scale: bool = False
    weights: bool = False
    axis: int = 0
    #: A scale per output channel, not one for all.
    per_channel: bool = True
    #: Its inputs must have the scale of its output: where they have another one, they get it.
    scale_of_output: bool = False
    #: Its last input is a constant with the scale of its first one.
    constant_of_input: bool = False
    #: The only quantization that TFLite's specification allows for the output.
    quantization: Quantization | None = None


def _moved(span: Span, *_others: Span) -> Span:
    return span


def _sum(first: Span, second: Span) -> Span:
    return Span(first.low + second.low, first.high + second.high)


def _difference(first: Span, second: Span) -> Span:
    return Span(first.low - second.high, first.high - second.low)


def _union(*spans: Span) -> Span:
    return Span(min(span.low for span in spans), max(span.high for span in spans))


def _hard_swish(span: Span) -> Span:
    return get_activation("h_swish").spans(span)[""]


#: Values between 0 and 1.
_PROBABILITIES = Quantization(np.array([1 / 256], np.float32), -128, "int8")
#: The int8 version of each operator. TFLite's specification gives fully connected layers one scale for all weights.
_RULES = {
    "ADD": _Rule(_sum),
    "AVERAGE_POOL_2D": _Rule(_moved, same_scale=True),
    "CONCATENATION": _Rule(_union, scale_of_output=True),
    "CONV_2D": _Rule(_moved, weights=True, axis=0),
    "DEPTHWISE_CONV_2D": _Rule(_moved, weights=True, axis=3),
    "FULLY_CONNECTED": _Rule(_moved, weights=True, axis=0, per_channel=False),
    "HARD_SWISH": _Rule(_hard_swish),
    "LOGISTIC": _Rule(lambda _: Span(0.0, 1.0), quantization=_PROBABILITIES),
    "MAX_POOL_2D": _Rule(_moved, same_scale=True),
    "MEAN": _Rule(_moved),
    "MIRROR_PAD": _Rule(_moved, same_scale=True),
    "MUL": _Rule(quantize.product),
    "PAD": _Rule(_moved, same_scale=True),
    "PADV2": _Rule(_moved, same_scale=True, constant_of_input=True),
    "RELU": _Rule(lambda span: span.clipped(Span(0.0, inf))),
    "RELU6": _Rule(lambda span: span.clipped(Span(0.0, 6.0))),
    "RESHAPE": _Rule(_moved, same_scale=True),
    "SUB": _Rule(_difference),
}
_CLIPS = {
    FUSED[kind.tflite_fused]: kind.clip
    for kind in map(get_activation, ("", "relu", "relu6"))
    if kind.tflite_fused is not None and kind.clip is not None
}


def quantized(
    graph: TfliteGraph, ranges: Ranges, inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[list[Node], dict[str, Tensor]]:
    """The nodes and tensors of the int8 version of a float32 graph, whose inputs and outputs stay float32.

    Raises `UsageError` for an operator without an int8 version.
    """
    file = _Int8Graph(graph, ranges)
    for name in inputs:
        file.add_input(name)
    for node in graph.nodes:
        file.add_node(node)
    file.add_ends(inputs, outputs)
    return file.nodes, {**file.tensors, **file.constants}


def boundary(operator: str, given: TensorSpec, output: str) -> tuple[list[Node], dict[str, Tensor]]:
    """The node and the tensors of an operator that changes the precision: QUANTIZE or DEQUANTIZE."""
    ends = Tensor(given.shape, "float32"), Tensor(given.shape, "int8", quantize.for_activations(USUAL_SPAN))
    before, after = ends if operator == _ENTER else reversed(ends)
    return [Node(operator, (given.name,), output)], {given.name: before, output: after}


def joined(parts: Iterable[tuple[list[Node], dict[str, Tensor]]]) -> tuple[list[Node], dict[str, Tensor]]:
    """The nodes and tensors of parts in sequence. A constant that two parts have in different types becomes two."""
    nodes: list[Node] = []
    tensors: dict[str, Tensor] = {}
    for part_nodes, part_tensors in parts:
        other = {
            name for name, tensor in part_tensors.items() if name in tensors and tensors[name].dtype != tensor.dtype
        }

        def named(name: str, tensor: Tensor, other: set[str] = other) -> str:
            return f"{name}/{tensor.dtype}" if name in other else name

        names = {name: named(name, tensor) for name, tensor in part_tensors.items()}
        nodes += [
            replace(node, inputs=tuple(names[name] for name in node.inputs), output=names[node.output])
            for node in part_nodes
        ]
        tensors |= {names[name]: tensor for name, tensor in part_tensors.items()}
    return nodes, tensors


class _Int8Graph:
    """The int8 version of a graph under construction."""

    def __init__(self, graph: TfliteGraph, ranges: Ranges) -> None:
        self.graph, self.ranges = graph, ranges
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.constants: dict[str, Tensor] = {}
        self.spans: dict[str, Span] = {}

    def add_input(self, name: str) -> None:
        self._add_tensor(name, self.graph.marks.span(name, self.ranges) or Span(0, 0))

    def add_node(self, node: Node) -> None:
        rule = _RULES.get(node.operator)
        if rule is None:
            layer = self.graph.marks.layer(node.output)
            raise UsageError(f"{layer}: the TFLite exporter has no int8 version of {node.operator}; use fp32")
        if rule.constant_of_input:
            node = self._with_constant_of_input(node)
        if rule.weights:
            span = self._add_weights(node, rule)
        else:
            span = rule.span(*(self._operand(name) for name in node.inputs if self._is_operand(name)))
        span = span.clipped(_CLIPS[node.options.get("FusedActivationFunction", FUSED["NONE"])])
        if rule.same_scale:
            source = self.tensors[node.inputs[0]]
            self.spans[node.output] = self.spans[node.inputs[0]]
            self.tensors[node.output] = replace(source, shape=self.graph.shapes[node.output])
        else:
            span = self.graph.marks.span(node.output, self.ranges) or span
            self._add_tensor(node.output, span, rule.quantization)
        if rule.scale_of_output:
            node = self._in_scale_of_output(node)
        self.nodes.append(node)

    def _in_scale_of_output(self, node: Node) -> Node:
        """The node with inputs that have the scale of its output."""
        wanted = self.tensors[node.output].quantization
        inputs = []
        for number, name in enumerate(node.inputs):
            given = self.tensors[name]
            if given.quantization != wanted:
                name = f"{node.output}/{number}"
                self.tensors[name] = replace(given, quantization=wanted)
                self.nodes.append(Node(_ENTER, (node.inputs[number],), name))
            inputs.append(name)
        return replace(node, inputs=tuple(inputs))

    def _add_tensor(self, name: str, span: Span, quantization: Quantization | None = None) -> None:
        self.spans[name] = span
        quantization = quantization or quantize.for_activations(span)
        self.tensors[name] = Tensor(self.graph.shapes[name], "int8", quantization)

    def _is_operand(self, name: str) -> bool:
        """Whether the input has values. A constant of shapes, axes or margins stays int32."""
        constant = self.graph.constants.get(name)
        if constant is None:
            return name in self.spans
        if constant.dtype.kind == "i":
            self.constants[name] = Tensor.constant(constant)
        return constant.dtype.kind != "i"

    def _with_constant_of_input(self, node: Node) -> Node:
        """The node with its last input, a constant that others may use, in the scale of its first one."""
        quantization = self.tensors[node.inputs[0]].quantization
        assert quantization is not None, "every activation has one"
        name = f"{node.output}/constant"
        self._add_constant(name, self.graph.constants[node.inputs[-1]], quantization)
        return replace(node, inputs=(*node.inputs[:-1], name))

    def _operand(self, name: str) -> Span:
        """The span of an input. A constant is quantized like an activation."""
        constant = self.graph.constants.get(name)
        if constant is None:
            return self.spans[name]
        span = Span(float(constant.min()), float(constant.max()))
        self._add_constant(name, constant, quantize.for_activations(span))
        return span

    def _add_weights(self, node: Node, rule: _Rule) -> Span:
        """Quantize weights and bias. Return the bounds of the output."""
        source, weight_name, bias_name = node.inputs
        weight, bias = self.graph.constants[weight_name], self.graph.constants[bias_name]
        quantization = self.tensors[source].quantization
        assert quantization is not None, "every activation has one"
        scales = quantize.for_weights(weight, rule.axis if rule.per_channel else None, quantization.scale, bias)
        self._add_constant(weight_name, weight, scales)
        self._add_constant(bias_name, bias, quantize.for_bias(quantization.scale, scales))
        return quantize.bounds_of_products(weight, rule.axis, bias, self.spans[source])

    def _add_constant(self, name: str, values: Array, quantization: Quantization) -> None:
        self.constants[name] = Tensor.constant(quantization.quantized(values), quantization)

    def add_ends(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Quantize the inputs and dequantize the outputs."""
        for name in inputs:
            self._replace(name, f"{name}/{_ENTER}")
            self.nodes.insert(0, Node(_ENTER, (name,), f"{name}/{_ENTER}"))
        for name in outputs:
            self._replace(name, f"{name}/int8")
            self.nodes.append(Node(_LEAVE, (f"{name}/int8",), name))

    def _replace(self, name: str, inner: str) -> None:
        """Rename a tensor to `inner`. The old name becomes a float32 tensor of the same shape."""

        def renamed(other: str) -> str:
            return inner if other == name else other

        self.tensors = {renamed(other): tensor for other, tensor in self.tensors.items()}
        self.nodes = [
            replace(node, inputs=tuple(map(renamed, node.inputs)), output=renamed(node.output)) for node in self.nodes
        ]
        self.tensors[name] = Tensor(self.tensors[inner].shape, "float32")
