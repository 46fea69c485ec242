"""Networks of all families: what is found, and that cutting it changes nothing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from support.pruning_nets import NETS, deviation_of_cut, half_of, hide_nothing, made, outputs_of

from ofa_search.pruning.cutting.cut import apply_record, cut
from ofa_search.pruning.cutting.record import CutRecord
from ofa_search.pruning.graph.find import find_groups
from ofa_search.pruning.groups import CHANNELS, CONV_GROUPS, HEADS


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if net.slow else []) for name, net in NETS.items()]
)
def test_cutting_is_exact(name: str) -> None:
    network, x = made(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    dependencies = find_groups(network, x)
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())
    net, kinds = NETS[name], Counter(group.kind for group in dependencies.groups)
    assert (kinds[CHANNELS], kinds[HEADS], kinds[CONV_GROUPS]) == (net.channels, net.heads, net.conv_groups)

    hide_nothing(network)
    kept = half_of(dependencies)
    assert deviation_of_cut(network, x, dependencies, kept) <= 1e-5

    record = CutRecord.from_json(cut(network, dependencies, kept).to_json())
    fresh, _ = made(name)
    apply_record(hide_nothing(fresh), record)
    fresh.load_state_dict(network.state_dict())
    expected = outputs_of(network, x)
    assert float((outputs_of(fresh, x) - expected).abs().max() / expected.abs().max()) <= 1e-5
    assert sum(p.numel() for p in fresh.parameters()) < 0.9 * sum(tensor.numel() for tensor in before.values())
    for group in dependencies.groups:
        assert all(np.isin(np.arange(group.n_units), axis.units).any() for axis in group.made)
