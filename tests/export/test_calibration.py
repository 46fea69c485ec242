"""Calibration: the ranges that the tensors of the network have, by three methods."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.int8 import images, network

from ofa_profiler.errors import UsageError
from ofa_profiler.export.calibration import METHODS, calibrate
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.layers import Conv, SqueezeExcite
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.networks.ranges import check_ranges, made_up_ranges
from ofa_profiler.networks.torch_modules import GraphModule, load_weights


def test_ranges_are_those_of_torch():
    layers = [Conv("conv", 3, 6, 3, activation="h_swish"), SqueezeExcite("se", 6, 4), Conv("last", 6, 2)]
    graph = Graph.chain(layers, (7, 5, 3))
    weights = random_weights(graph, np.random.default_rng(0))
    batches = [images(graph, 3, seed=1), images(graph, 2, seed=2)]
    ranges = calibrate(graph, weights, lambda: batches)
    check_ranges(graph, ranges)
    assert ranges.source == "calibrated"
    module = GraphModule(graph).eval()
    load_weights(module, weights)
    x = torch.from_numpy(np.concatenate(batches))
    conv, se, last = (module.get_submodule(layer.name) for layer in layers)
    linear = conv.bn(conv.conv(x))
    y = conv(x)
    mean = y.mean((2, 3), keepdim=True)
    reduced = se.reduce(mean).relu()
    expected = {
        "input": x,
        "conv.linear": linear,
        "conv": y,
        "se.mean": mean,
        "se.reduce": reduced,
        "se.expand": se.expand(reduced),
        "se": se(y),
        "last": last(se(y)),
    }
    assert ranges.spans.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(ranges.spans[name], (values.min().item(), values.max().item()), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_network_has_all_its_ranges(method):
    graph, weights = network("cifar-mbv3", seed=1)
    ranges = calibrate(graph, weights, lambda: [images(graph, 2, seed=0)], method=method)
    check_ranges(graph, ranges)
    assert any(name.endswith(".part2") for name in ranges.spans)


def test_percentile_and_mse_leave_outliers_out():
    """A range without one value in ten thousand is much smaller, and rounds all others better."""
    graph = Graph.chain([Conv("conv", 1, 1, bias=True, batch_norm=False)], (50, 50, 1))
    weights = {"conv.conv.weight": np.ones((1, 1, 1, 1), np.float32), "conv.conv.bias": np.zeros(1, np.float32)}
    x = np.random.default_rng(0).standard_normal((100, 1, 50, 50)).astype(np.float32)
    x[0, 0, 0, :2] = 100
    found = {method: calibrate(graph, weights, lambda: [x], method=method).spans["conv"] for method in METHODS}
    assert found["minmax"].high == 100
    low, high = np.percentile(x, [0.01, 99.99])
    np.testing.assert_allclose(found["percentile"], (low, high), atol=0.1)
    assert found["mse"].low > x.min()

    def error(span):
        scale = (span.high - span.low) / 255
        return np.square(np.clip(x, *span) - x).sum() + x.size * scale**2 / 12

    assert error(found["mse"]) < min(error(found["minmax"]), error(found["percentile"])) * 1.01


def test_impossible_calibrations_are_refused():
    graph, weights = network("cifar-mbv3", seed=1)
    with pytest.raises(UsageError, match="unknown method of calibration 'best'; choose from minmax, percentile, mse"):
        calibrate(graph, weights, lambda: [images(graph, 1, seed=0)], method="best")
    with pytest.raises(UsageError, match="calibration needs images, and there are none"):
        calibrate(graph, weights, list)
    with pytest.raises(UsageError, match="calibration: input has values that are not finite"):
        calibrate(graph, weights, lambda: [np.full((1, 3, 24, 24), np.nan, np.float32)])


def test_made_up_ranges_say_so():
    graph, _ = network("cifar-mbv3", seed=1)
    assert made_up_ranges(graph).source == "made up"
    check_ranges(graph, made_up_ranges(graph))
