"""Layers: every backend has every layer, and those of transformers compute what torch computes."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from ofa_profiler.errors import UsageError
from ofa_profiler.export import get_exporter, onnx, tflite  # noqa: F401 (they fill their tables)
from ofa_profiler.networks import layers
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.layers import Conv, Gelu, Layer, LayerNorm, LayerTable, SelfAttention
from ofa_profiler.networks.layers.tables import ONNX_LAYERS, TFLITE_LAYERS, TORCH_LAYERS
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.networks.torch_modules import GraphModule, load_weights, run_graph
from ofa_profiler.protocol.target import Target
from ofa_search.supernet.elastic import ELASTIC_LAYERS

torch.set_num_threads(1)

LAYERS = [entry for name in layers.__all__ if issubclass(entry := getattr(layers, name), Layer) and entry is not Layer]
TABLES = (TORCH_LAYERS, ONNX_LAYERS, TFLITE_LAYERS, ELASTIC_LAYERS)


# --- no table has a hole -----------------------------------------------------------------------------------


def test_every_layer_type_is_listed():
    folder = Path(layers.__file__).parent
    defined = {
        line.split("(")[0].removeprefix("class ")
        for path in folder.glob("*.py")
        for line in path.read_text().splitlines()
        if line.startswith("class ") and ("(Layer)" in line or "(SameShape)" in line)
    }
    assert defined - {"SameShape"} == {layer.__name__ for layer in LAYERS}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.backend)
def test_every_backend_has_every_layer(table):
    ours = {layer for layer in table if layer.__module__.startswith("ofa_profiler.")}  # tests register more
    assert ours == set(LAYERS)


def test_a_missing_or_second_entry_is_refused():
    table: LayerTable[int] = LayerTable("a backend")
    with pytest.raises(UsageError, match="a backend has no entry for the layer Conv"):
        _ = table[Conv]
    table.register(Conv)(1)
    with pytest.raises(UsageError, match="a backend already has an entry for the layer Conv"):
        table.register(Conv)(2)


# --- the layers of transformers ----------------------------------------------------------------------------


def transformer(length: int, channels: int, heads: int) -> Graph:
    """Norm, attention and GELU, added to the input."""
    branch = (LayerNorm("norm", channels), SelfAttention("attention", channels, heads), Gelu("gelu"))
    return Graph.with_shortcut(branch, (length, channels), (), "relu")


GRAPHS = {
    "norm": Graph.chain((LayerNorm("norm", 24, 1e-6),), (7, 24)),
    "gelu": Graph.chain((Gelu("gelu"),), (7, 24)),
    "attention": Graph.chain((SelfAttention("attention", 24, 4),), (7, 24)),
    "block": transformer(49, 64, 8),
}


def torch_output(graph: Graph, weights, x: np.ndarray) -> np.ndarray:
    module = GraphModule(graph).eval()
    load_weights(module, weights)
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def onnx_output(data: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (value,) = session.run(None, {"input": x})
    return value


def litert_output(data: bytes, x: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("runtime", "run"), [("onnxruntime", onnx_output), ("litert", litert_output)])
@pytest.mark.parametrize("name", GRAPHS)
def test_both_runtimes_compute_what_torch_computes(name, runtime, run, batch):
    graph, rng, target = GRAPHS[name], np.random.default_rng(5), Target(runtime, batch=batch)
    weights = random_weights(graph, rng)
    x = rng.standard_normal((batch, *graph.inputs[0].shape)).astype(np.float32)
    expected = torch_output(graph, weights, x)
    data = get_exporter(target).build(graph, weights, target, outputs=["output"], metadata={})
    got = run(data, x)
    assert got.shape == expected.shape == x.shape
    assert expected.std() > 0.01
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_attention_is_that_of_torch():
    """The same as `nn.MultiheadAttention`, which stores its parameters under other names."""
    graph, rng = GRAPHS["attention"], np.random.default_rng(0)
    weights = random_weights(graph, rng)
    theirs = nn.MultiheadAttention(24, 4, batch_first=True).eval()
    names = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias", "out_proj.weight": "out.weight"}
    names["out_proj.bias"] = "out.bias"
    theirs.load_state_dict({k: torch.from_numpy(weights[f"attention.{v}"]) for k, v in names.items()})
    x = torch.from_numpy(rng.standard_normal((2, 7, 24)).astype(np.float32))
    with torch.no_grad():
        expected, _ = theirs(x, x, x, need_weights=False)
    np.testing.assert_allclose(torch_output(graph, weights, x.numpy()), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", GRAPHS)
def test_macs_and_parameters(name):
    graph = GRAPHS[name]
    with torch.device("meta"):
        module = GraphModule(graph)
    assert graph.params == sum(parameter.numel() for parameter in module.parameters())
    macs = 0
    for node in graph.nodes:
        if isinstance(node.layer, SelfAttention):
            length, channels = graph.shapes[node.name]
            projections = length * sum(prod(s) for s in node.layer.parameter_shapes().values() if len(s) == 2)
            macs += projections + 2 * length * length * channels  # scores, and the weighted sum of values
    assert graph.macs == macs


def test_layers_without_choices_serve_as_elastic_ones():
    torch.manual_seed(0)
    for graph in (GRAPHS["norm"], GRAPHS["attention"], GRAPHS["gelu"]):
        (node,) = graph.nodes
        elastic = ELASTIC_LAYERS[type(node.layer)]([node.layer])
        tensors = elastic.state_dict()
        assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == node.layer.parameter_shapes()
        x = torch.randn(2, *graph.inputs[0].shape)
        module = GraphModule(graph)
        load_weights(module, {f"{node.name}.{name}": tensor.numpy() for name, tensor in tensors.items()})
        torch.testing.assert_close(elastic(x), module(x))
    with pytest.raises(UsageError, match="layer norm: a LayerNorm cannot be elastic"):
        ELASTIC_LAYERS[LayerNorm]([LayerNorm("norm", 8), LayerNorm("norm", 16)])


# --- graphs ------------------------------------------------------------------------------------------------


def test_graphs_that_do_not_fit_are_refused():
    first, second = Graph.chain((Gelu("a"),), (7, 24)), Graph.chain((Gelu("b"),), (7, 16))
    with pytest.raises(UsageError, match=r"second needs inputs of the shapes \(\(7, 16\),\), but the part before"):
        Graph.joined([("first", first), ("second", second)])


def test_a_graph_knows_its_branches():
    block = Graph.with_shortcut((LayerNorm("norm", 8), Gelu("gelu")), (4, 8), (Gelu("beside"),), "")
    assert [[node.name for node in branch] for branch in block.branches] == [["norm", "gelu"], ["beside"]]
    assert [node.name for node in Graph.joined([("first", block)]).nodes] == [
        "first.norm", "first.gelu", "first.beside", "first.shortcut"
    ]  # fmt: skip
    assert run_graph(block, (torch.ones(1),), lambda node, *x: sum(x)) == 2.0
