"""The general layers compute the same in torch, onnxruntime and LiteRT, and count what torch counts."""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import pytest
import torch
from support.both_formats import RUNTIMES, assert_close, run_graph_file, torch_output

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.graph import Graph, Node
from ofa_profiler.networks.layers import (
    Activate,
    Affine,
    AnyConv,
    AsMap,
    ChannelShuffle,
    ChannelSlice,
    Concat,
    Flatten,
    Linear,
    Multiply,
    Pad,
    Softmax,
    WindowMax,
    WindowMean,
)
from ofa_profiler.networks.layers.activations import ACTIVATIONS
from ofa_profiler.networks.layers.window import counted
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.networks.ranges import made_up_ranges
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.networks.torch_modules import GraphModule, load_weights
from ofa_search.supernet.elastic import ELASTIC_LAYERS

torch.set_num_threads(1)

INNER = {"rows": counted(7, 3, 2, 1, 4), "columns": counted(6, 3, 2, 1, 3)}  # of windows on a map of 7 x 6
CHAINS = {
    "conv": ((7, 6, 8), AnyConv("a", 8, 12, (3, 2), (2, 1), (1, 0, 2, 1), activation="silu")),
    "dilated": ((9, 8, 6), AnyConv("a", 6, 6, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), activation="h_sigmoid")),
    "grouped": ((7, 6, 12), AnyConv("a", 12, 9, (3, 3), (1, 1), (1, 1, 1, 1), groups=3, activation="sigmoid")),
    "multiplier": ((7, 6, 5), AnyConv("a", 5, 10, (3, 3), (2, 2), (0, 0, 1, 1), groups=5, activation="relu6")),
    "affine": ((5, 4, 7), Affine("a", 7, "relu")),
    "affine of a vector": ((7,), Affine("a", 7, "h_swish")),
    "padding": ((4, 5, 3), Pad("a", (1, 0, 2, 3))),
    "flatten": ((3, 2, 4), Flatten("a")),
    "shuffle": ((3, 2, 12), ChannelShuffle("a", 3)),
    "slice": ((3, 2, 12), ChannelSlice("a", 3, 8)),
    "softmax": ((9,), Softmax("a")),
    "as map": ((9,), AsMap("a")),
    "linear of a map": ((3, 2, 4), Linear("a", 24, 5)),
    "maximum": ((7, 6, 4), WindowMax("a", (3, 2), (2, 2), (1, 0, 1, 1))),
    "maximum, TFLite's own margins": ((7, 6, 4), WindowMax("a", (3, 3), (1, 1), (1, 1, 1, 1))),
    "mean": ((6, 6, 4), WindowMean("a", (3, 2), (3, 2))),
    "mean with margins": ((7, 6, 4), WindowMean("a", (3, 3), (2, 2), (1, 1, 1, 0))),
    "mean of the pixels inside": ((7, 6, 4), WindowMean("a", (3, 3), (2, 2), (1, 1, 1, 0), **INNER)),
    **{f"activation {name}": ((3, 2, 5), Activate("a", name)) for name in ACTIVATIONS if name},
}


def two_inputs(layer, *shapes) -> Graph:
    inputs = tuple(TensorSpec(name, "float32", shape) for name, shape in zip("xy", shapes, strict=True))
    return Graph(inputs, (Node("a", layer, ("x", "y")),), ("a",))


GRAPHS = {
    **{name: Graph.chain((layer,), shape) for name, (shape, layer) in CHAINS.items()},
    "concatenation": two_inputs(Concat("a"), (3, 2, 5), (3, 2, 3)),
    "product": two_inputs(Multiply("a"), (3, 2, 5), (3, 2, 5)),
    "gate": two_inputs(Multiply("a"), (1, 1, 5), (3, 2, 5)),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_backend_computes_the_same(name, batch):
    graph, rng = GRAPHS[name], np.random.default_rng(3)
    weights = random_weights(graph, rng)
    module = GraphModule(graph)
    load_weights(module, weights)
    shapes = [(s[-1], *s[:-1]) for s in (tensor.shape for tensor in graph.inputs)]
    arrays = [(3 * rng.standard_normal((batch, *shape))).astype(np.float32) for shape in shapes]
    expected = torch_output(module, *arrays)
    output = graph.shapes["a"]
    assert expected.shape == (batch, output[-1], *output[:-1])
    for runtime in RUNTIMES:
        assert_close(run_graph_file(runtime, graph, weights, *arrays), expected)


@pytest.mark.parametrize("name", GRAPHS)
def test_guessed_ranges_are_ordered(name):
    for span in made_up_ranges(GRAPHS[name]).spans.values():
        assert span.low <= span.high


def test_macs_and_parameters_of_a_convolution():
    graph = GRAPHS["grouped"]
    assert graph.params == 9 * 4 * 9 + 9
    assert graph.macs == 7 * 6 * 9 * 4 * 9


def test_layers_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"layer a cannot join maps of different sizes: \(3, 2, 5\), \(3, 3, 5\)"):
        _ = two_inputs(Concat("a"), (3, 2, 5), (3, 3, 5)).shapes
    with pytest.raises(UsageError, match=r"layer a cannot multiply the shapes \(3, 2, 5\) and \(3, 3, 5\)"):
        _ = two_inputs(Multiply("a"), (3, 2, 5), (3, 3, 5)).shapes
    with pytest.raises(UsageError, match="layer a takes channels 3 to 8 of 7"):
        _ = Graph.chain((ChannelSlice("a", 3, 8),), (2, 2, 7)).shapes


def test_general_layers_serve_as_elastic_ones():
    for layer in (Pad("a", (1, 1, 1, 1)), Affine("a", 3)):
        x = torch.randn(1, 3, 4, 4)
        torch.testing.assert_close(
            ELASTIC_LAYERS[type(layer)]([layer])(x), GraphModule(Graph.chain((layer,), (4, 4, 3)))(x)
        )


def test_nonnegative_maps_are_padded_with_zeros():
    """XNNPACK supports PAD, but not PADV2."""
    rng = np.random.default_rng(0)
    layers = [WindowMax("a", (3, 3), (2, 2), (1, 1, 0, 0), nonnegative=flag) for flag in (False, True)]
    x = rng.random((1, 4, 6, 6), dtype=np.float32)
    plain, zeros = (run_graph_file("litert", Graph.chain((layer,), (6, 6, 4)), {}, x) for layer in layers)
    np.testing.assert_array_equal(plain, zeros)
