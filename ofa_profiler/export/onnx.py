"""ONNX models for onnxruntime, written node by node from the layers of a network.

The graph equals the one to which onnxruntime optimises an export of the torch module. A network consists of the nodes
of its ops in sequence, so it has the same operators as its ops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from ofa_profiler.base.releases import numbers_of
from ofa_profiler.errors import UsageError
from ofa_profiler.export import onnx_general_layers, onnx_layers  # noqa: F401 (they fill the table)
from ofa_profiler.export.base import Exporter, nchw
from ofa_profiler.export.forms import hard_sigmoid_swish, wide_gate  # noqa: F401 (they register forms)
from ofa_profiler.export.forms.base import activation_writers
from ofa_profiler.export.onnx_graph import OnnxGraph
from ofa_profiler.export.onnx_int8 import PER_CHANNEL_SINCE, QdqGraph, boundary, joined, kept_float, quantized
from ofa_profiler.export.runs import runs_of, slot_precision
from ofa_profiler.networks.boundary import is_boundary
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.graph import Node as GraphNode
from ofa_profiler.networks.layers.tables import ONNX_LAYERS
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.encodings import ENCODINGS, U8S7
from ofa_profiler.protocol.forms import PLAIN, AnyForms
from ofa_profiler.protocol.target import Target

#: The oldest opset and file version with all operators that are used (LayerNormalization needs opset 17). So old
#: versions of onnxruntime on boards can load the models (1.12 and later).
OPSET = 17
IR_VERSION = 8
#: Older releases of onnxruntime, from which on they know an opset and a file version (measured with their wheels).
_OLDER = {(1, 11): (16, 8), (1, 9): (15, 8), (1, 8): (14, 7), (1, 6): (13, 7), (1, 3): (12, 7), (1, 2): (11, 6)}
_NEW_ENOUGH = (1, 12)


class OnnxExporter(Exporter):
    """Builds float32 ONNX models with input (N, C, H, W) and a fixed batch.

    For an older opset, an operator that it lacks is written as those that define it (`onnx_layers.py`).
    """

    format = "ONNX"
    precisions = ("fp32", "int8")
    encodings = tuple(ENCODINGS)
    version = 1

    def __init__(self, opset: int = OPSET, ir_version: int = IR_VERSION) -> None:
        self.opset, self.ir_version = opset, ir_version
        self.dialect = f"opset {opset}" if opset != OPSET else ""

    def for_release(self, release: str | None) -> OnnxExporter:
        numbers = numbers_of(release)
        if numbers is None or numbers >= _NEW_ENOUGH:
            return self
        for since, (opset, ir_version) in _OLDER.items():
            if numbers >= since:
                return OnnxExporter(opset, ir_version)
        oldest, (opset, _) = min(_OLDER.items())
        raise UsageError(
            f"onnxruntime {release} is too old: these models need opset {opset}, "
            f"onnxruntime {'.'.join(map(str, oldest))} or newer"
        )

    def check(self, target: Target) -> None:
        super().check(target)
        if target.has_integers and self.opset < PER_CHANNEL_SINCE:
            raise UsageError("int8 needs onnxruntime 1.6 or newer, whose weights have a scale per channel; use fp32")

    def build(
        self,
        graph: Graph,
        weights: Weights,
        target: Target,
        *,
        outputs: Sequence[str],
        metadata: Mapping[str, str],
        forms: AnyForms = PLAIN,
        ranges: Ranges | None = None,
        precisions: Mapping[str, str] | None = None,
    ) -> bytes:
        self.check(target)
        encoding = ENCODINGS[target.encoding or U8S7.name]
        if is_boundary(graph) and target.precision == "int8":
            is_quantize = graph.inputs[0].dtype == "float32"
            part = boundary(is_quantize, graph.inputs[0].name, outputs[0], encoding)
            dtype = encoding.activations if is_quantize else "float32"
            return self._bytes(part, graph, target, outputs, metadata, dtype)
        float32 = self.written(graph, weights, target, outputs=outputs, forms=forms, precisions=precisions)
        file: OnnxGraph | QdqGraph = float32
        if target.has_integers:
            spans = self.ranges_for(graph, ranges)
            names = [tensor.name for tensor in graph.inputs]
            within = {*names, *outputs}.isdisjoint
            parts = list(zip(float32.precisions, float32.nodes, strict=True))
            file = joined(
                quantized(float32.part(run.nodes), spans, encoding, run.inputs, run.outputs)
                if run.precision == "int8"
                else kept_float(float32.part(run.nodes), run.inputs, within(run.inputs + run.outputs))
                for run in runs_of(parts, names, outputs, lambda node: (node.input, node.output))
            )
        return self._bytes(file, graph, target, outputs, metadata)

    def _bytes(
        self,
        file: OnnxGraph | QdqGraph,
        graph: Graph,
        target: Target,
        outputs: Sequence[str],
        metadata: Mapping[str, str],
        dtype: str = "float32",
    ) -> bytes:
        """The bytes of a model whose outputs are of this `dtype`."""
        shapes = [nchw(graph.shapes[name], target.batch) for name in graph.outputs]
        values = [_value(TensorSpec(name, dtype, shape)) for name, shape in zip(outputs, shapes, strict=True)]
        model = self.model(file, graph, target, values)
        helper.set_model_props(model, dict(sorted(metadata.items())))
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def inputs(self, graph: Graph, target: Target) -> tuple[TensorSpec, ...]:
        given = super().inputs(graph, target)
        if target.precision != "int8":
            return given
        dtype = ENCODINGS[target.encoding or U8S7.name].activations
        return tuple(tensor._replace(dtype=dtype) if tensor.dtype == "int8" else tensor for tensor in given)

    def model(
        self,
        file: OnnxGraph | QdqGraph,
        graph: Graph,
        target: Target,
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.ModelProto:
        """A model with these nodes and outputs."""
        inputs = [_value(tensor) for tensor in self.inputs(graph, target)]
        return helper.make_model(
            helper.make_graph(file.nodes, "ofa", inputs, outputs, file.initializers),
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=self.ir_version,
            producer_name="ofa-profiler",
        )

    def written(
        self,
        graph: Graph,
        weights: Weights,
        target: Target,
        *,
        outputs: Sequence[str],
        forms: AnyForms = PLAIN,
        precisions: Mapping[str, str] | None = None,
        observe: Callable[..., None] | None = None,
    ) -> OnnxGraph:
        """The nodes and constants of the float32 graph, with the marks of its tensors.

        `observe(file, node, *tensors)` can add more after each node of the network.
        """
        file = OnnxGraph(weights, dict(graph.shapes), target.batch, self.opset)

        def write(node: GraphNode, *tensors: str) -> str:
            precision = slot_precision(precisions, node.name, target.precision)
            chosen = forms.at(precision)
            file.activations = activation_writers(target.runtime, chosen)
            tensor = self.writer(ONNX_LAYERS, node.layer, target, chosen)(file, node.layer, node.name, *tensors)
            file.marks.add(tensor, node.name)
            file.precisions.extend([precision] * (len(file.nodes) - len(file.precisions)))
            if observe is not None:
                observe(file, node, *tensors)
            return tensor

        names = {tensor.name: tensor.name for tensor in graph.inputs}
        for name in names:
            file.marks.add(name, name)
        for old, new in zip(graph.run(names, write), outputs, strict=True):
            file.rename(old, new)
        return file


def _value(tensor: TensorSpec) -> onnx.ValueInfoProto:
    element_type = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(tensor.name, element_type, tensor.shape)
