"""Sums over the parameters of units, and the scores made of them, against loops over units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.pruning import SmallNet, batches, dependencies, keep_share
from torch import nn
from torch.nn import functional

from ofa_profiler.errors import UsageError
from ofa_search.pruning.groups import Axis, Dependencies, Group
from ofa_search.pruning.optimizers.saliency import EQUAL, SCORES, Saliency
from ofa_search.pruning.optimizers.units import Units


@pytest.fixture
def module() -> SmallNet:
    torch.manual_seed(0)
    module = SmallNet()
    backward(module)
    return module


def backward(module: nn.Module, seed: int = 0) -> None:
    images, labels = batches(1, seed)[0]
    functional.cross_entropy(module(images), labels).backward()


def vectors(module: nn.Module, of: Any) -> list[np.ndarray]:
    """For each unit, in order: all values of its parameters in one vector."""
    found = []
    parameters = dict(module.named_parameters())
    for group in dependencies().groups:
        for unit in range(group.n_units):
            parts = [
                np.take(of(parameters[axis.tensor]).detach().numpy(), np.flatnonzero(axis.units == unit), axis.axis)
                for axis in group.made
                if axis.tensor in parameters
            ]
            found.append(np.concatenate([part.ravel() for part in parts]).astype(np.float64))
    return found


def test_sums_are_those_of_a_loop_over_units(module: SmallNet) -> None:
    units = Units(module, dependencies())
    assert units.total == 8 + 16 + 5
    sums = units.sums(lambda x: x.square())
    expected = [(values**2).sum() for values in vectors(module, lambda x: x)]
    np.testing.assert_allclose(sums, expected, rtol=1e-5)
    assert units.sizes.tolist() == [len(values) for values in vectors(module, lambda x: x)]
    assert [len(values) for values in units.by_group(sums).values()] == [8, 16, 5]
    assert all(values.dtype == np.float64 for values in units.by_group(sums).values())


def test_scores_are_those_of_their_formulas(module: SmallNet) -> None:
    units = Units(module, dependencies())
    saliency = Saliency(units, EQUAL)
    rows = []
    for seed in (0, 1):
        module.zero_grad()
        backward(module, seed)
        saliency.sample()
        x, g = vectors(module, lambda x: x), vectors(module, lambda x: x.grad)
        x_g = np.array([one @ other for one, other in zip(x, g, strict=True)])
        lengths = np.array([np.linalg.norm(one) * np.linalg.norm(other) for one, other in zip(x, g, strict=True)])
        rows.append([1 - x_g / lengths, abs(x_g), x_g**2 / 2])
    lengths = np.array([np.linalg.norm(values) for values in x])
    sizes = np.array([len(values) for values in x])
    cosine, first, second = np.mean(rows, axis=0)
    expected = dict(zip(SCORES, (lengths, lengths / np.sqrt(sizes), cosine, first, second), strict=True))
    for name, score in saliency.scores().items():
        np.testing.assert_allclose(score, expected[name], rtol=1e-4, atol=1e-9, err_msg=name)
    total = sum(0.2 * score / np.linalg.norm(score) for score in expected.values())
    np.testing.assert_allclose(saliency.values(), total, rtol=1e-4)
    saliency.clear()
    assert not saliency.scores()["taylor1"].any()


def test_a_unit_that_is_zero_has_no_saliency(module: SmallNet) -> None:
    units = Units(module, dependencies())
    removed = torch.zeros(units.total, dtype=torch.bool)
    removed[[1, 9, 28]] = True
    units.erase(removed)
    module.zero_grad()
    backward(module)
    saliency = Saliency(units, EQUAL)
    saliency.sample()
    assert (saliency.values() == 0).nonzero().flatten().tolist() == [1, 9, 28]


def test_units_next_to_each_other_in_one_tensor(module: SmallNet) -> None:
    """A normalisation after a concatenation has the units of several groups, and a head has several channels."""
    one = Axis("up.weight", 0, np.array([0, 0, 1, 1, 2, 2, *[-1] * 10]))
    other = Axis("up.weight", 0, np.array([*[-1] * 6, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]))
    groups = Dependencies((Group("one", "heads", 3, 2, (one,), ()), Group("other", "heads", 2, 5, (other,), ())), ())
    units = Units(module, groups)
    assert units.sizes.tolist() == [16, 16, 16, 40, 40]
    before = module.up.weight.detach().clone()
    units.scale(torch.tensor([1.0, 0.5, 1.0, 2.0, 1.0]))
    factors = torch.tensor([1, 1, 0.5, 0.5, 1, 1, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2]).view(-1, 1, 1, 1)
    assert torch.equal(module.up.weight, before * factors)
    units.erase(torch.tensor([False, True, False, False, True]))
    assert (module.up.weight.flatten(1).abs().sum(1) == 0).nonzero().flatten().tolist() == [2, 3, 6, 8, 10, 12, 14]


def test_a_mask_and_what_it_keeps(module: SmallNet) -> None:
    units = Units(module, dependencies())
    mask = units.mask({"pairs": np.array([4, 0])})
    assert mask.sum() == 8 + 16 + 2
    assert {name: list(kept) for name, kept in units.kept(mask).items()}["pairs"] == [0, 4]
    assert keep_share(units.by_group(units.sizes), 1.0).keys() == units.kept(mask).keys()


@pytest.mark.parametrize(
    ("weights", "words"), [({"entropy": 1.0}, "unknown score 'entropy'; choose from magnitude"), ({}, "above 0")]
)
def test_scores_that_do_not_exist_are_refused(module: SmallNet, weights: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Saliency(Units(module, dependencies()), weights)
