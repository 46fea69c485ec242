"""Ops: the published keys, and MACs and parameters counted over the torch modules."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.marks import marked
from torch import nn

from ofa_profiler import get_space, space_names
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.blocks import block_op, make_divisible
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.parameters import parameter_shapes
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.networks.torch_modules import OpModule, StaticNetwork


def published_keys(path) -> set[str]:
    """The unindented lines of a published table are its keys."""
    lines = path.read_text().splitlines()
    return {line.rstrip(":") for line in lines if line and not line[0].isspace()}


@pytest.mark.parametrize("resolution", range(160, 225, 4))
def test_keys_are_those_of_the_published_tables(shared_dir, resolution):
    published = published_keys(shared_dir / "data" / "ofa" / "note10" / f"{resolution}_lookup_table.yaml")
    ops = get_space("ofa-mbv3-w1.2").unique_ops([resolution])
    assert {op.key for op in ops} == published


def test_key_of_a_block_letter_for_letter():
    op = block_op("mbconv", (112, 112, 24), (56, 56, 32), kernel_size=3, mid_channels=144, stride=2, activation="relu")
    assert op.key == ("expanded_conv-input:112x112x24-output:56x56x32-expand:144-kernel:3-stride:2-idskip:0-se:0-hs:0")


@pytest.mark.parametrize("name", space_names())
def test_distinct_ops_have_distinct_keys(name):
    ops = get_space(name).unique_ops()
    assert len({op.key for op in ops}) == len(ops) > 200


def counted(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, int]:
    """MACs seen by hooks while the module runs on shapes only, and its trainable parameters."""
    macs = 0

    def count(layer, _, output):
        nonlocal macs
        macs += output[0].numel() * prod(layer.weight.shape[1:])

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    height, width, channels = input_shape
    module(torch.empty(2, channels, height, width))
    return macs, sum(p.numel() for p in module.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", space_names())
def test_macs_and_params_of_every_op_equal_a_count_over_its_module(name):
    space = get_space(name)
    for op in space.unique_ops(space.resolutions[:2]):  # the second one gives odd heights
        with torch.device("meta"):
            assert (op.macs, op.params) == counted(OpModule(op), op.input_shape), op.key


@pytest.mark.parametrize("name", marked(space_names(), pytest.mark.slow, but=["cifar-mbv3"]))
def test_macs_and_params_of_networks_equal_a_count_over_the_module(name):
    space = get_space(name)
    rng = np.random.default_rng(0)
    for architecture in [space.smallest, space.largest, *(space.sample(rng) for _ in range(10))]:
        with torch.device("meta"):
            network = StaticNetwork(space.layout(architecture))
            resolution = architecture.resolution
            expected = counted(network, (resolution, resolution, 3))
        assert (space.macs(architecture), space.params(architecture)) == expected


@pytest.mark.parametrize("name", space_names())
def test_parameter_names_and_shapes_are_those_of_the_module(name):
    space = get_space(name)
    layout = space.layout(space.sample(np.random.default_rng(1)))
    with torch.device("meta"):
        state = StaticNetwork(layout).state_dict()
    expected = {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert parameter_shapes(layout) == expected
    assert {"stage1_block0.se.reduce.bias", "stage1_block0.downsample.bn.bias", "classifier.linear.weight"} & set(
        expected
    )


def test_space_reaches_the_macs_of_the_published_networks():
    space = get_space("ofa-mbv3-w1.2")  # the authors release subnets of it with 389 M, 482 M and 595 M MACs
    assert space.macs(space.smallest) < 389e6
    assert space.macs(space.largest) > 595e6


def test_unknown_kind_is_refused():
    tensors = (TensorSpec("input", "float32", (1, 8)),)
    op = Op("lstm", tensors, tensors, {}, "lstm")
    with pytest.raises(UsageError, match="unknown kind of op 'lstm'; choose from"):
        _ = op.graph


@given(value=st.floats(1, 1e6))
def test_make_divisible_loses_at_most_a_tenth(value):
    assert make_divisible(value) % 8 == 0
    assert 0.9 * value <= make_divisible(value) <= value + 8
