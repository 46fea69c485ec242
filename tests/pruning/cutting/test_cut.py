"""Cutting in place, again, and a fresh module by the record."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ofa_profiler.errors import UsageError
from ofa_search.pruning.cutting.cut import apply_record, cut, zero_units
from ofa_search.pruning.cutting.record import AttributeCut, CutRecord
from ofa_search.pruning.graph.find import find_groups

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    ).eval()


def test_parameters_stay_the_same_objects() -> None:
    net = network()
    before = list(net.parameters())
    cut(net, find_groups(net, X), {"0": np.array([1, 2, 6])})
    assert all(one is other for one, other in zip(net.parameters(), before, strict=True))
    assert net[0].weight.shape == (3, 3, 3, 3)  # type: ignore[union-attr]
    assert (net[0].out_channels, net[1].num_features, net[3].in_channels) == (3, 3, 3)  # type: ignore[union-attr]
    assert net(X).shape == (2, 4)


def test_the_record_says_what_is_kept() -> None:
    net = network()
    record = cut(net, find_groups(net, X), {"3": np.array([0, 5])})
    document = record.to_json()
    assert document["tensors"]["3.weight"] == {"0": {"of": 6, "kept": [0, 5]}}
    assert document["tensors"]["6.weight"] == {"1": {"of": 96, "kept": [*range(16), *range(80, 96)]}}
    assert document["attributes"] == {"3": {"out_channels": 2}, "6": {"in_features": 32}}


def test_cutting_again() -> None:
    net = network()
    first = cut(net, find_groups(net, X), {"0": np.array([1, 2, 5, 6]), "3": np.array([0, 1, 2])})
    second = cut(net, find_groups(net, X), {"0": np.array([0, 3])})
    fresh = network()
    apply_record(fresh, first.then(second))
    assert torch.equal(fresh(X), net(X))
    assert first.then(second).to_json()["tensors"]["0.weight"]["0"]["kept"] == [1, 6]


def test_keeping_all_changes_nothing() -> None:
    net = network()
    assert cut(net, find_groups(net, X), {"0": np.arange(8)}) == CutRecord()


def test_units_that_are_zero_can_go() -> None:
    net = network()
    dependencies = find_groups(net, X)
    zero_units(net, dependencies.by_name["0"], np.array([0, 7]))
    expected = net(X)
    assert float(net[:3](X).detach()[:, [0, 7]].abs().max()) == 0  # type: ignore[index]
    cut(net, dependencies, {"0": np.arange(1, 7)})
    assert torch.allclose(net(X), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kept", [[], [3, 1], [1, 1], [0, 8], [-1, 2]])
def test_units_that_do_not_exist_are_refused(kept: list[int]) -> None:
    net = network()
    with pytest.raises(UsageError, match="0: the units that are kept are not ascending within 0 to 7"):
        cut(net, find_groups(net, X), {"0": np.array(kept, np.int64)})
    assert net(X).shape == (2, 4)


def test_unknown_groups_are_refused() -> None:
    net = network()
    with pytest.raises(UsageError, match="no group of the network is called 'conv9'"):
        cut(net, find_groups(net, X), {"conv9": np.array([0])})


def test_the_groups_of_another_state_are_refused() -> None:
    net = network()
    dependencies = find_groups(net, X)
    cut(net, dependencies, {"0": np.arange(4)})
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UsageError, match=r"0.weight has shape \(4, 3, 3, 3\), and the record needs 8 along axis 0"):
        cut(net, dependencies, {"0": np.arange(4)})
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_records_of_other_networks_are_refused() -> None:
    net = network()
    record = cut(net, find_groups(net, X), {"0": np.arange(4)})
    with pytest.raises(UsageError, match=r"Linear has no 0\.weight, which the record cuts"):
        apply_record(nn.Linear(3, 3), record)
    with pytest.raises(UsageError, match="Sequential has no module 'conv', which the record changes"):
        apply_record(network(), CutRecord((), (AttributeCut("conv", "groups", 3),)))
    with pytest.raises(UsageError, match="0 has no 'weight' that the record could change"):
        apply_record(network(), CutRecord((), (AttributeCut("0", "weight", 3),)))


def test_what_a_module_remembers_is_forgotten() -> None:
    class Cached(nn.Module):
        """Keeps a result until it trains again, as attention of timm does."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.scale, self.kept = nn.Conv2d(3, 4, 1), nn.Parameter(torch.rand(4)), None

        def train(self, mode: bool = True) -> Cached:
            self.kept = None
            return super().train(mode)

        def forward(self, x: Tensor) -> Tensor:
            if self.kept is None:
                self.kept = self.scale.reshape(1, -1, 1, 1) * 2
            out: Tensor = self.conv(x) * self.kept
            return out

    net = nn.Sequential(Cached(), nn.Conv2d(4, 2, 1)).eval()
    dependencies = find_groups(net, X)
    net(X)
    cut(net, dependencies, {"0.conv": np.array([1, 3])})
    assert net(X).shape == (2, 2, 8, 8)
    assert not net.training
