"""TFLite models for LiteRT and tflite_runtime, written node by node from the layers of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ofa_profiler.export import tflite_layers  # noqa: F401 (fills the table)
from ofa_profiler.export.base import Exporter
from ofa_profiler.export.forms import (  # noqa: F401 (they register forms)
    average_convolution,
    depthwise_split,
    hard_swish,
    max_pool_padding,
    saturating_gate,
)
from ofa_profiler.export.forms.base import activation_writers
from ofa_profiler.export.tflite_file import write_model
from ofa_profiler.export.tflite_graph import TfliteGraph
from ofa_profiler.export.tflite_int8 import quantized
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.graph import Node as GraphNode
from ofa_profiler.networks.layers.tables import TFLITE_LAYERS
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.forms import PLAIN, Forms
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
        forms: Forms = PLAIN,
        ranges: Ranges | None = None,
    ) -> bytes:
        self.check(target)
        given = self.inputs(graph, target)
        _ = graph.shapes  # raises `UsageError` if shapes do not match
        file = TfliteGraph(
            weights, {tensor.name: tensor.shape for tensor in given}, activation_writers(target.runtime, forms)
        )

        def write(node: GraphNode, *tensors: str) -> str:
            tensor = self.writer(TFLITE_LAYERS, node.layer, target, forms)(file, node.layer, node.name, *tensors)
            file.marks.add(tensor, node.name)
            return tensor

        names = [tensor.name for tensor in given]
        for name in names:
            file.marks.add(name, name)
        written = graph.run(dict(zip(names, names, strict=True)), write)
        for old, new in zip(written, outputs, strict=True):
            file.rename(old, new)
        if target.precision == "int8":
            nodes, tensors = quantized(file, self.ranges_for(graph, ranges), names, outputs)
        else:
            nodes, tensors = file.nodes, file.tensors({tensor.name: tensor.dtype for tensor in given})
        return write_model(nodes, tensors, inputs=names, outputs=outputs, metadata=metadata)

    def inputs(self, graph: Graph, target: Target) -> tuple[TensorSpec, ...]:
        return tuple(
            tensor._replace(shape=(target.batch, *tensor.shape), dtype=_NARROWER.get(tensor.dtype, tensor.dtype))
            for tensor in graph.inputs
        )
