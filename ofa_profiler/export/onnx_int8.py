"""Quantizes an ONNX graph for onnxruntime: QuantizeLinear and DequantizeLinear around each operator (QDQ).

The layers write a float32 graph (`onnx_layers.py`, `forms/`). Here every tensor is quantized and dequantized, and
onnxruntime fuses an operator between both into its integer kernel, if it has one. HardSwish has none: it runs in
float32. Three operators disappear, because integers saturate at the same limits:

- ReLU and ReLU6: the integers of their output start at 0 and end at the largest value.
- HardSigmoid: with a scale of 6/254 and a zero point of 128, the integers of x saturate at 3 and a step below -3. So
  they are those of hard_sigmoid(x) with a scale of 1/254 and a zero point of 1. If nothing else reads x, such as in a
  squeeze-excite, the operator before gives such integers at no cost. Otherwise x is quantized twice.

The encoding says how integers are stored (`protocol/encodings.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ofa_profiler.errors import UsageError
from ofa_profiler.export import quantize
from ofa_profiler.export.onnx_graph import OnnxGraph
from ofa_profiler.export.quantize import Quantization
from ofa_profiler.networks.layers.activations import get_activation
from ofa_profiler.networks.parameters import Array
from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.networks.tensors import USUAL_SPAN, Span
from ofa_profiler.protocol.encodings import Encoding

#: The opset since which weights can have a scale per channel.
PER_CHANNEL_SINCE = 13
#: Operators with weights and bias as inputs 1 and 2, and output channels along axis 0.
_WEIGHTED = {"Conv", "Gemm"}
#: Operators whose output has the values of their input, and so its scale.
_SAME_SCALE = {"Flatten", "MaxPool", "Resize"}
#: Other operators -> the span of the output, from those of the inputs.
_SPANS: dict[str, Callable[..., Span]] = {
    "Add": lambda a, b: Span(a.low + b.low, a.high + b.high),
    "AveragePool": lambda a: a,
    "Concat": lambda *spans: Span(min(span.low for span in spans), max(span.high for span in spans)),
    "GlobalAveragePool": lambda a: a,
    "HardSwish": lambda a: get_activation("h_swish").spans(a)[""],
    "Mul": quantize.product,
    "Sigmoid": lambda _: Span(0.0, 1.0),
}
#: Steps of a hard sigmoid between 0 and 1: an even number, so that 1/2 is exact.
_GATE_STEPS = 254
_ALL = Span(-inf, inf)
_CLIPS = {"Clip": Span(0.0, 6.0), "Relu": Span(0.0, inf)}


@dataclass(frozen=True)
class QdqGraph:
    """The nodes and constants of a quantized graph, with float32 ends."""

    nodes: list[onnx.NodeProto]
    initializers: list[onnx.TensorProto]


def quantized(
    graph: OnnxGraph, ranges: Ranges, encoding: Encoding, inputs: Sequence[str], outputs: Sequence[str]
) -> QdqGraph:
    """The quantized version of a float32 graph. Raises `UsageError` for an operator without one."""
    file = _Quantizer(graph, ranges, encoding)
    for name in inputs:
        file.add_pair(name, file.graph.marks.span(name, ranges) or Span(0, 0))
    for node in graph.nodes:
        file.add_node(node, is_float=node.op_type == "Gemm" and node.output[0] in outputs)
    for name in outputs:
        if name in file.read:
            file.add_output(name)
    return QdqGraph(file.nodes, file.initializers)


def boundary(is_quantize: bool, given: str, output: str, encoding: Encoding) -> QdqGraph:
    """The node and the constants of an operator that changes the precision."""
    quantization = quantize.for_activations(USUAL_SPAN, encoding.activations)
    values = {
        "scale": np.array(quantization.scale, np.float32),
        "zero_point": np.array(quantization.zero_point, quantization.dtype),
    }
    operator = "QuantizeLinear" if is_quantize else "DequantizeLinear"
    node = helper.make_node(operator, [given, *values], [output], output)
    return QdqGraph([node], [numpy_helper.from_array(value, name) for name, value in values.items()])


def kept_float(part: OnnxGraph, inputs: Sequence[str], between_int8: bool) -> OnnxGraph | QdqGraph:
    """The float32 nodes of a run, which take `inputs`, so that onnxruntime runs them in float32.

    Between DequantizeLinear and QuantizeLinear, onnxruntime runs a single operator in integers, and even quantizes its
    weights, with one scale for all channels. A Clip without limits before the operator changes nothing, and prevents
    that.
    """
    operators = [node for node in part.nodes if node.op_type not in _CLIPS]
    if not between_int8 or len(operators) != 1:
        return part
    nodes = [helper.make_node("Clip", [name], [f"{name}/float32"], f"{name}/float32") for name in inputs]
    for node in part.nodes:
        kept = onnx.NodeProto()
        kept.CopyFrom(node)
        kept.input[:] = [f"{name}/float32" if name in inputs else name for name in node.input]
        nodes.append(kept)
    return QdqGraph(nodes, part.initializers)


def joined(parts: Iterable[OnnxGraph | QdqGraph]) -> QdqGraph:
    """The nodes and constants of parts in sequence."""
    nodes: list[onnx.NodeProto] = []
    initializers: dict[str, onnx.TensorProto] = {}
    for part in parts:
        nodes += part.nodes
        initializers |= {tensor.name: tensor for tensor in part.initializers}
    return QdqGraph(nodes, list(initializers.values()))


class _Quantizer:
    """The quantized graph under construction."""

    def __init__(self, graph: OnnxGraph, ranges: Ranges, encoding: Encoding) -> None:
        self.graph, self.ranges, self.encoding = graph, ranges, encoding
        self.constants = {tensor.name: tensor for tensor in graph.initializers}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.spans: dict[str, Span] = {}
        self.quantizations: dict[str, Quantization] = {}
        #: Tensor of the float32 graph -> the dequantized tensor that operators read.
        self.read: dict[str, str] = {}
        readers = Counter(name for node in graph.nodes for name in node.input)
        # The integers of a gate are those of its input (`_saturate`).
        inner = {name for node in graph.nodes if node.op_type != "HardSigmoid" for name in node.output}
        alone = [node for node in graph.nodes if node.input[0] in inner and readers[node.input[0]] == 1]
        #: Tensor -> the node that clips it, which alone reads it. Its integers are those of the output of that node.
        self.clipped = {node.input[0]: node for node in alone if node.op_type in _CLIPS}
        #: Tensors that only a hard sigmoid reads.
        self.before_gates = {node.input[0] for node in alone if node.op_type == "HardSigmoid"}

    def add_node(self, node: onnx.NodeProto, *, is_float: bool = False) -> None:
        """Add a node of the float32 graph. Its output stays float32, if it `is_float`: QGemm can give that."""
        if node.op_type in _CLIPS and node.input[0] in self.clipped:
            return
        if node.op_type == "HardSigmoid":
            self._saturate(node.input[0], node.output[0])
            return
        if node.op_type not in _WEIGHTED | _SAME_SCALE | _CLIPS.keys() | _SPANS.keys():
            layer = self.graph.marks.layer(node.output[0])
            raise UsageError(f"{layer}: the ONNX exporter has no int8 version of {node.op_type}; use fp32")
        source, output = node.input[0], node.output[0]
        if node.op_type in _WEIGHTED:
            inputs, span = self._weighted(node)
        elif node.op_type in _SAME_SCALE | _CLIPS.keys():
            inputs = [self.read[source], *map(self._float_constant, node.input[1:])]
            span = self.spans[source].clipped(_CLIPS.get(node.op_type, _ALL))
        else:
            inputs = [self._operand(name) for name in node.input]
            span = _SPANS[node.op_type](*(self.spans[name] for name in node.input))
        while (clip := self.clipped.get(output)) is not None:
            output, span = clip.output[0], span.clipped(_CLIPS[clip.op_type])
        kept = onnx.NodeProto()
        kept.CopyFrom(node)
        del kept.input[:], kept.output[:]
        kept.input.extend(inputs)
        kept.output.append(output)
        self.nodes.append(kept)
        if is_float:
            return
        given = self.quantizations[source] if node.op_type in _SAME_SCALE else None
        given = self._gate_input if output in self.before_gates else given
        self.add_pair(output, self.graph.marks.span(output, self.ranges) or span, given)

    @property
    def _gate_input(self) -> Quantization:
        """Integers that saturate at 3 and a step below -3, with 0 in the middle."""
        limits = np.iinfo(self.encoding.activations)
        return Quantization(np.array([6 / _GATE_STEPS], np.float32), int(limits.min) + 128, self.encoding.activations)

    def _saturate(self, source: str, gate: str) -> None:
        """Read the integers of `source` as a hard sigmoid."""
        integers = f"{source}/quantized"
        if source not in self.before_gates:
            parameters = self._parameters(f"{gate}/saturated", self._gate_input)
            integers = self._add("QuantizeLinear", [self.read[source], *parameters], f"{gate}/quantized")
        limits = np.iinfo(self.encoding.activations)
        output = Quantization(np.array([1 / _GATE_STEPS], np.float32), int(limits.min) + 1, self.encoding.activations)
        self.spans[gate], self.quantizations[gate] = Span(0.0, 1.0), output
        self.read[gate] = self._add(
            "DequantizeLinear", [integers, *self._parameters(gate, output)], f"{gate}/dequantized"
        )

    def add_pair(self, name: str, span: Span, quantization: Quantization | None = None) -> None:
        """Quantize and dequantize a tensor."""
        quantization = quantization or quantize.for_activations(span, self.encoding.activations)
        self.spans[name], self.quantizations[name] = span, quantization
        parameters = self._parameters(name, quantization)
        integers = self._add("QuantizeLinear", [name, *parameters], f"{name}/quantized")
        if name not in self.before_gates:  # onnxruntime would run a node that nothing reads
            self.read[name] = self._add("DequantizeLinear", [integers, *parameters], f"{name}/dequantized")

    def add_output(self, name: str) -> None:
        """Give the dequantized tensor the name of the output."""
        inner = f"{name}/float"
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, other in enumerate(names):
                    names[i] = {name: inner, self.read[name]: name}.get(other, other)

    def _weighted(self, node: onnx.NodeProto) -> tuple[list[str], Span]:
        """Quantize weights and bias. Return the inputs of the node, and the bounds of its output."""
        source, weight_name, *bias_names = node.input
        weight = numpy_helper.to_array(self.constants[weight_name])
        bias = numpy_helper.to_array(self.constants[bias_names[0]]) if bias_names else None
        scale = self.quantizations[source].scale
        scales = quantize.for_weights(weight, 0, scale, bias, self.encoding.max_weight)
        inputs = [self.read[source], self._constant(weight_name, weight, scales)]
        if bias is not None:
            inputs.append(self._constant(bias_names[0], bias, quantize.for_bias(scale, scales)))
        zeros = np.zeros(len(weight)) if bias is None else bias
        return inputs, quantize.bounds_of_products(weight, 0, zeros, self.spans[source])

    def _operand(self, name: str) -> str:
        """What a node reads. A constant is quantized like an activation."""
        if name not in self.read:
            values = numpy_helper.to_array(self.constants[name])
            self.spans[name] = Span(float(values.min()), float(values.max()))
            quantization = quantize.for_activations(self.spans[name], self.encoding.activations)
            self.read[name] = self._constant(name, values, quantization)
        return self.read[name]

    def _constant(self, name: str, values: Array, quantization: Quantization) -> str:
        """Add a constant as integers, and what dequantizes it."""
        self._initializer(f"{name}/quantized", quantization.quantized(values))
        inputs = [f"{name}/quantized", *self._parameters(name, quantization)]
        return self._add("DequantizeLinear", inputs, f"{name}/dequantized", axis=quantization.axis or 0)

    def _float_constant(self, name: str) -> str:
        """Keep a constant, such as the scales of Resize. Inputs that are left out have no name."""
        if name and name not in {tensor.name for tensor in self.initializers}:
            self.initializers.append(self.constants[name])
        return name

    def _parameters(self, name: str, quantization: Quantization) -> list[str]:
        """Add scale and zero point of a tensor as constants."""
        scales, zeros = quantization.scales, np.full(len(quantization.scales), quantization.zero_point)
        if quantization.axis is None:
            scales, zeros = scales[0], zeros[0]
        self._initializer(f"{name}/scale", np.asarray(scales, np.float32))
        self._initializer(f"{name}/zero_point", np.asarray(zeros, quantization.dtype))
        return [f"{name}/scale", f"{name}/zero_point"]

    def _initializer(self, name: str, values: Array) -> None:
        self.initializers.append(numpy_helper.from_array(values, name))

    def _add(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [output], output, **attributes))
        return output
