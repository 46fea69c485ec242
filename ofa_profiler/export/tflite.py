"""TFLite models for LiteRT and tflite_runtime, written node by node from the layers of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ofa_profiler.export import tflite_general_layers, tflite_layers  # noqa: F401 (they fill the table)
from ofa_profiler.export.base import Exporter
from ofa_profiler.export.forms import (  # noqa: F401 (they register forms)
    average_convolution,
    depthwise_split,
    hard_swish,
    max_pool_padding,
    saturating_gate,
)
from ofa_profiler.export.forms.base import activation_writers
from ofa_profiler.export.runs import runs_of, slot_precision
from ofa_profiler.export.tflite_file import write_model
from ofa_profiler.export.tflite_graph import TfliteGraph
from ofa_profiler.export.tflite_int8 import boundary, joined, quantized
from ofa_profiler.networks.boundary import is_boundary
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.graph import Node as GraphNode
from ofa_profiler.networks.layers.tables import TFLITE_LAYERS
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.forms import PLAIN, AnyForms
from ofa_profiler.protocol.target import Target

#: The kernels of TFLite take indices of 32 bits.
_NARROWER = {"int64": "int32"}


class TfliteExporter(Exporter):
    """Builds TFLite models with input (N, H, W, C) and a fixed batch. int8 models are quantized from float32 ones."""

    format = "TFLite"
    precisions = ("fp32", "int8")
    version = 2

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
        given = self.inputs(graph, target)
        if is_boundary(graph) and target.precision == "int8":
            nodes, tensors = boundary(graph.nodes[0].name.upper(), given[0], outputs[0])
            return write_model(nodes, tensors, inputs=[given[0].name], outputs=outputs, metadata=metadata)
        _ = graph.shapes  # raises `UsageError` if shapes do not match
        file = TfliteGraph(weights, {tensor.name: tensor.shape for tensor in given})
        written_in: list[str] = []

        def write(node: GraphNode, *tensors: str) -> str:
            precision = slot_precision(precisions, node.name, target.precision)
            chosen = forms.at(precision)
            file.activations = activation_writers(target.runtime, chosen)
            tensor = self.writer(TFLITE_LAYERS, node.layer, target, chosen)(file, node.layer, node.name, *tensors)
            file.marks.add(tensor, node.name)
            written_in.extend([precision] * (len(file.nodes) - len(written_in)))
            return tensor

        names = [tensor.name for tensor in given]
        for name in names:
            file.marks.add(name, name)
        written = graph.run(dict(zip(names, names, strict=True)), write)
        for old, new in zip(written, outputs, strict=True):
            file.rename(old, new)
        if target.has_integers:
            spans, parts = self.ranges_for(graph, ranges), zip(written_in, file.nodes, strict=True)
            nodes, tensors = joined(
                quantized(file.part(run.nodes), spans, run.inputs, run.outputs)
                if run.precision == "int8"
                else (run.nodes, file.part(run.nodes).tensors({}))
                for run in runs_of(list(parts), names, outputs, lambda node: (node.inputs, [node.output]))
            )
        else:
            nodes, tensors = file.nodes, file.tensors({tensor.name: tensor.dtype for tensor in given})
        return write_model(nodes, tensors, inputs=names, outputs=outputs, metadata=metadata)

    def inputs(self, graph: Graph, target: Target) -> tuple[TensorSpec, ...]:
        return tuple(
            tensor._replace(shape=(target.batch, *tensor.shape), dtype=_NARROWER.get(tensor.dtype, tensor.dtype))
            for tensor in graph.inputs
        )
