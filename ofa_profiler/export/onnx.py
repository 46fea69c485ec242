"""ONNX models for onnxruntime, written node by node from the layers of a network.

The graph equals the one to which onnxruntime optimises an export of the torch module. A network consists of the nodes
of its ops in sequence, so it has the same operators as its ops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from ofa_profiler.export import onnx_layers  # noqa: F401 (fills the table)
from ofa_profiler.export.base import Exporter, nchw
from ofa_profiler.export.onnx_graph import OnnxGraph
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.layers.tables import ONNX_LAYERS
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.target import Target

#: The oldest opset and file version with all operators that are used (LayerNormalization needs opset 17). So old
#: versions of onnxruntime on boards can load the models (1.12 and later).
OPSET = 17
IR_VERSION = 8


class OnnxExporter(Exporter):
    """Builds float32 ONNX models with input (N, C, H, W) and a fixed batch."""

    format = "ONNX"
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
    ) -> bytes:
        self.check(target)
        file = OnnxGraph(weights, dict(graph.shapes), target.batch)
        written = graph.run(
            {tensor.name: tensor.name for tensor in graph.inputs},
            lambda node, *tensors: ONNX_LAYERS[type(node.layer)](file, node.layer, node.name, *tensors),
        )
        for old, new in zip(written, outputs, strict=True):
            file.rename(old, new)
        shapes = [nchw(graph.shapes[name], target.batch) for name in graph.outputs]
        model = helper.make_model(
            helper.make_graph(
                file.nodes,
                "ofa",
                [_value(tensor) for tensor in self.inputs(graph, target)],
                [_value(TensorSpec(name, "float32", shape)) for name, shape in zip(outputs, shapes, strict=True)],
                file.initializers,
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="ofa-profiler",
        )
        helper.set_model_props(model, dict(sorted(metadata.items())))
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))


def _value(tensor: TensorSpec) -> onnx.ValueInfoProto:
    element_type = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_value_info(tensor.name, element_type, tensor.shape)
