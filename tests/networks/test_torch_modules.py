"""Torch modules: what they compute and the weights they take."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ofa_profiler import get_space
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.blocks import block_op
from ofa_profiler.networks.made_up_weights import random_weights, repeating_weights
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.parameters import parameter_shapes
from ofa_profiler.networks.torch_modules import OpModule, StaticNetwork, load_weights, to_weights

torch.set_num_threads(1)


def block(**changes) -> Op:
    fields = {"kernel_size": 5, "mid_channels": 24, "activation": "h_swish"} | changes
    return block_op("mbconv", (9, 9, 8), (9, 9, 8), **fields)


def test_block_computes_what_the_paper_says():
    """An inverted bottleneck with squeeze-excite, written out in numpy-like steps."""
    op = block(se=True, skip=True)
    weights = {k: torch.from_numpy(v) for k, v in random_weights(op, np.random.default_rng(0)).items()}
    module = OpModule(op).eval()
    load_weights(module, {k: v.numpy() for k, v in weights.items()})
    x = torch.randn(2, 8, 9, 9, generator=torch.Generator().manual_seed(0))

    def norm(y, name):
        def column(field):
            return weights[f"{name}.bn.{field}"].reshape(1, -1, 1, 1)

        scaled = (y - column("running_mean")) / torch.sqrt(column("running_var") + 1e-5)
        return scaled * column("weight") + column("bias")

    def h_swish(y):
        return y * torch.clamp(y + 3, 0, 6) / 6

    def dense(y, name, suffix=".conv.weight"):
        return torch.einsum("nchw,oc->nohw", y, weights[name + suffix][:, :, 0, 0])

    y = h_swish(norm(dense(x, "inverted_bottleneck"), "inverted_bottleneck"))
    padded = nn.functional.pad(y, (2, 2, 2, 2)).unfold(2, 5, 1).unfold(3, 5, 1)
    depthwise = torch.einsum("nchwij,cij->nchw", padded, weights["depth_conv.conv.weight"][:, 0])
    y = h_swish(norm(depthwise, "depth_conv"))
    gate = torch.relu(
        dense(y.mean((2, 3), keepdim=True), "se.reduce", ".weight") + weights["se.reduce.bias"][:, None, None]
    )
    gate = torch.clamp(dense(gate, "se.expand", ".weight") + weights["se.expand.bias"][:, None, None] + 3, 0, 6) / 6
    y = norm(dense(y * gate, "point_linear"), "point_linear")
    torch.testing.assert_close(module(x), x + y)


def test_weights_come_back_as_they_went_in():
    layout = get_space("cifar-mbv3").layout(get_space("cifar-mbv3").largest)
    weights = random_weights(layout, np.random.default_rng(3))
    network = StaticNetwork(layout)
    load_weights(network, weights)
    returned = to_weights(network)
    assert returned.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(returned[name], value)
    network.get_parameter("classifier.linear.bias").data.zero_()
    assert returned["classifier.linear.bias"].any()  # a copy, not a view


@pytest.mark.parametrize("made", [lambda op: random_weights(op, np.random.default_rng(0)), repeating_weights])
def test_half_precision_weights_are_read(made):
    weights = {k: v.astype(np.float16) for k, v in made(block()).items()}
    module = OpModule(block())
    load_weights(module, weights)
    assert to_weights(module)["point_linear.conv.weight"].dtype == np.float32


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("point_linear.bn.bias", None, "point_linear.bn.bias is missing"),
        ("point_linear.bn.bias", np.zeros(7), r"has the shape \(7,\), but this network needs \(8,\)"),
        ("point_linear.bn.bias", np.full(8, np.nan), "holds values that are not finite"),
        ("point_linear.bn.running_var", np.full(8, -1.0), "holds a negative variance"),
        ("se.reduce.bias", np.zeros(8), "se.reduce.bias is not a parameter of this network"),
    ],
)
def test_weights_of_another_network_are_refused(name, value, message):
    weights = dict(random_weights(block(), np.random.default_rng(0)))
    if value is None:
        del weights[name]
    else:
        weights[name] = value
    with pytest.raises(UsageError, match=message):
        load_weights(OpModule(block()), weights)


def test_unknown_activation_is_refused():
    with pytest.raises(UsageError, match="unknown activation 'mish'; choose from relu, relu6, h_swish"):
        OpModule(block(activation="mish"))


# --- made-up weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.2", "cifar-mbv3"])
@pytest.mark.parametrize("kind", ["random", "repeating"])
def test_activations_keep_their_magnitude_through_whole_networks(name, kind):
    space = get_space(name)
    rng = np.random.default_rng(0)
    for architecture in (space.smallest, space.sample(rng), space.largest):
        layout = space.layout(architecture)
        network = StaticNetwork(layout).eval()
        load_weights(network, random_weights(layout, rng) if kind == "random" else repeating_weights(layout))
        x = torch.from_numpy(rng.standard_normal((1, 3, architecture.resolution, architecture.resolution), np.float32))
        with torch.no_grad():
            for op in network:
                x = op(x)
                assert 0.02 < x.square().mean().sqrt() < 50


def test_random_weights_have_statistics_that_matter_and_follow_the_rng():
    op = block(se=True)
    first, again = (random_weights(op, np.random.default_rng(5)) for _ in range(2))
    other = random_weights(op, np.random.default_rng(6))
    assert {k: v.shape for k, v in first.items()} == parameter_shapes(op)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        assert (value != other[name]).any()
        assert len(np.unique(value)) == value.size  # no channel's BatchNorm is that of another
        assert (value > 0).all() or not name.endswith("running_var")


def test_repeating_weights_are_dense():
    for name, value in repeating_weights(block(se=True)).items():
        assert value.dtype == np.float32
        assert (np.abs(value) > 1e-6).all(), name
