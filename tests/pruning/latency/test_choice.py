"""The choice within a budget, against all networks of small spaces."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_profiler.errors import InfeasibleError
from ofa_profiler.spaces.costs import AdditiveCost, Part
from ofa_search.pruning.latency.choice import MILLISECONDS, choose, kept_units, value_of
from ofa_search.pruning.latency.space import PruningSpace, Width


def random_problem(seed: int, genes: int) -> tuple[AdditiveCost, AdditiveCost]:
    """A chain of layers with noisy products of widths as costs."""
    rng = np.random.default_rng(seed)
    counts = [tuple(sorted(rng.choice(np.arange(1, 9), rng.integers(1, 5), replace=False))) for _ in range(genes)]
    widths = tuple(Width((f"g{i}",), tuple((int(n),) for n in levels)) for i, levels in enumerate(counts))
    space = PruningSpace(widths)
    parts = [Part((0,), np.array([n for (n,) in widths[0].levels], dtype=float))]
    for i in range(genes - 1):
        grid = np.outer(*([n for (n,) in widths[j].levels] for j in (i, i + 1))) * rng.uniform(0.7, 1.3)
        parts.append(Part((i, i + 1), grid * rng.uniform(0.8, 1.2, grid.shape)))
    saliencies = {f"g{i}": rng.exponential(1.0, 8) for i in range(genes)}
    return AdditiveCost(space, tuple(parts), 0.5), value_of(space, saliencies)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 5), st.floats(0.0, 1.1))
def test_against_all_networks(seed: int, genes: int, part: float) -> None:
    cost, value = random_problem(seed, genes)
    every = np.array(list(product(*(range(n) for n in cost.space.n_choices))), dtype=np.int8)
    costs, values = cost.evaluate(every), value.evaluate(every)
    budget = float(costs.min() + part * (costs.max() - costs.min()))
    best = values[costs <= budget].max()
    found = choose(cost, value, budget)
    assert found.cost <= budget
    assert found.value <= best + 1e-9 <= found.bound + 2e-9
    assert found.value >= 0.9 * best


def test_mostly_optimal() -> None:
    ratios = []
    for seed in range(40):
        cost, value = random_problem(seed, 5)
        every = np.array(list(product(*(range(n) for n in cost.space.n_choices))), dtype=np.int8)
        costs, values = cost.evaluate(every), value.evaluate(every)
        budget = float(np.quantile(costs, 0.4))
        ratios.append(choose(cost, value, budget).value / values[costs <= budget].max())
    assert np.mean(np.array(ratios) > 1 - 1e-9) >= 0.9
    assert np.mean(ratios) > 0.998


def test_unusable_networks_are_not_chosen() -> None:
    cost, value = random_problem(3, 4)
    parts = [Part(part.genes, part.values.copy()) for part in cost.parts]
    parts[1].values[-1, -1] = np.inf
    found = choose(AdditiveCost(cost.space, tuple(parts)), value, 1e9)
    assert np.isfinite(found.cost)


def test_a_budget_below_the_attainable() -> None:
    cost, value = random_problem(1, 3)
    with pytest.raises(InfeasibleError, match=r"meets 0\.1ms; attainable: .*ms to .*ms$") as caught:
        choose(cost, value, 0.1, MILLISECONDS)
    assert caught.value.attainable == (cost.minimum()[0], cost.maximum()[0])
    assert caught.value.exit_code == 3


def test_the_most_salient_units() -> None:
    assert kept_units([0.1, 3.0, 0.1, 2.0], 3).tolist() == [0, 1, 3]
