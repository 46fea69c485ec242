"""Models with integer inputs, written by our own exporters: an embedding of the numbers of words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from support.kits import QUICK

from ofa_profiler.devices import LocalDevice
from ofa_profiler.errors import UsageError
from ofa_profiler.export import export_ops, get_exporter, onnx_layers, tflite_layers  # noqa: F401 (they fill their tables)
from ofa_profiler.measuring.session import measure
from ofa_profiler.networks.graph import Graph, Node
from ofa_profiler.networks.layers import Layer
from ofa_profiler.networks.layers.tables import ONNX_LAYERS, TFLITE_LAYERS
from ofa_profiler.networks.op import Op, register_block
from ofa_profiler.networks.tensors import Shape, TensorSpec
from ofa_profiler.protocol.target import Target

WORDS, LENGTH, WIDTH = 30, 5, 8


@dataclass(frozen=True)
class Embedding(Layer):
    words: int
    width: int

    def parameter_shapes(self) -> dict[str, Shape]:
        return {"weight": (self.words, self.width)}

    def output_shape(self, *inputs: Shape) -> Shape:
        return (*inputs[0], self.width)


@ONNX_LAYERS.register(Embedding)
def _onnx(graph, _layer, name, ids):
    return graph.add_node("Gather", [graph.add_parameter(f"{name}.weight"), ids], name)


@TFLITE_LAYERS.register(Embedding)
def _tflite(graph, layer, name, ids):
    shape = (*graph.shapes[ids], layer.width)
    return graph.add_node("GATHER", [graph.add_parameter(f"{name}.weight"), ids], name, shape)


IDS = TensorSpec("ids", "int64", (LENGTH,), (0, WORDS))


@register_block("test-embedding")
def _layers(op: Op) -> Graph:
    return Graph(op.inputs, (Node("table", Embedding("table", WORDS, WIDTH), ("ids",)),), ("table",))


OP = Op("test-embedding", (IDS,), (TensorSpec("output", "float32", (LENGTH, WIDTH)),), {}, "embedding")


@pytest.mark.parametrize(("runtime", "dtype"), [("onnxruntime", "int64"), ("litert", "int32")])
def test_an_embedding_is_exported_and_measured(tmp_path: Path, runtime, dtype):
    target = Target(runtime, batch=2)
    (model,) = export_ops([OP], target, cache_dir=tmp_path)
    assert model.inputs == (TensorSpec("ids", dtype, (2, LENGTH), (0, WORDS)),)
    settings = replace(QUICK, target=target, provider="CPU" if runtime == "litert" else None)
    (measured,) = measure(LocalDevice(), [model], settings, ops=[OP]).values()
    assert measured.ok, measured.error


def test_the_numbers_are_those_of_the_table(tmp_path: Path):
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    weights = {"table.weight": np.random.default_rng(0).normal(size=(WORDS, WIDTH)).astype(np.float32)}
    ids = np.array([[3, 0, 29, 7, 7]])
    onnx, tflite = (
        get_exporter(Target(name)).build(OP.graph, weights, Target(name), outputs=["output"], metadata={})
        for name in ("onnxruntime", "litert")
    )
    (got,) = onnxruntime.InferenceSession(onnx).run(None, {"ids": ids})
    np.testing.assert_array_equal(got, weights["table.weight"][ids])
    interpreter = Interpreter(model_content=tflite)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], ids.astype(np.int32))
    interpreter.invoke()
    got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_array_equal(got, weights["table.weight"][ids])


def test_a_dtype_that_the_format_lacks_is_refused():
    op = replace(OP, inputs=(IDS._replace(dtype="int16"),))
    with pytest.raises(UsageError, match="the TFLite exporter does not support the dtype int16"):
        export_ops([op], Target("litert"))
