"""TFLite models for LiteRT and tflite_runtime, written node by node from the layers of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ofa_profiler.export import tflite_layers  # noqa: F401 (fills the table)
from ofa_profiler.export.base import Exporter
from ofa_profiler.export.forms import depthwise_split, max_pool_padding  # noqa: F401 (they register forms)
from ofa_profiler.export.tflite_file import write_model
from ofa_profiler.export.tflite_graph import TfliteGraph
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.layers.tables import TFLITE_LAYERS
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.forms import PLAIN, Forms
from ofa_profiler.protocol.target import Target

#: The kernels of TFLite take indices of 32 bits.
_NARROWER = {"int64": "int32"}


class TfliteExporter(Exporter):
    """Builds float32 TFLite models with input (N, H, W, C) and a fixed batch."""

    format = "TFLite"
    precisions = ("fp32",)
    version = 1

    def build(
        self,
        graph: Graph,
        weights: Weights,
        target: Target,
        *,
        outputs: Sequence[str],
        metadata: Mapping[str, str],
        forms: Forms = PLAIN,
    ) -> bytes:
        self.check(target)
        inputs = self.inputs(graph, target)
        _ = graph.shapes  # raises `UsageError` if shapes do not match
        file = TfliteGraph(weights, {tensor.name: tensor.shape for tensor in inputs})
        written = graph.run(
            {tensor.name: tensor.name for tensor in inputs},
            lambda node, *tensors: self.writer(TFLITE_LAYERS, node.layer, target, forms)(
                file, node.layer, node.name, *tensors
            ),
        )
        for old, new in zip(written, outputs, strict=True):
            file.rename(old, new)
        dtypes = {tensor.name: tensor.dtype for tensor in inputs}
        return write_model(file.nodes, file.shapes, file.constants, inputs=dtypes, outputs=outputs, metadata=metadata)

    def inputs(self, graph: Graph, target: Target) -> tuple[TensorSpec, ...]:
        return tuple(
            tensor._replace(shape=(target.batch, *tensor.shape), dtype=_NARROWER.get(tensor.dtype, tensor.dtype))
            for tensor in graph.inputs
        )
