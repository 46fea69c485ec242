"""Bounds against the best of all networks of small spaces."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_spaces import ONE_STAGE, TINY, everything, random_predictor

from ofa_profiler.errors import UsageError
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost, Cost, Part, ScaledCost
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search import Macs, Objective
from ofa_search.searching.bounds import branching
from ofa_search.searching.bounds.additive import AdditiveProblem
from ofa_search.searching.bounds.branching import Branching
from ofa_search.searching.bounds.elimination import Sums
from ofa_search.searching.bounds.proof import prove, why_unbounded
from ofa_search.searching.bounds.relaxation import Relaxation
from ofa_search.searching.engines import get_engine
from ofa_search.searching.engines.evolutionary import Evolutionary
from ofa_search.searching.engines.exact import Exact
from ofa_search.searching.feasibility import find_anchor
from ofa_search.searching.objectives import AccuracyInPrecision, PredictedAccuracy
from ofa_search.searching.problem import Constraint, Problem

ALL = everything(TINY)
SOON = 30.0
#: Scores of a network differ by less, by what else is scored with it.
ROUNDING = 1e-6


def random_cost(space: SearchSpace, rng: np.random.Generator, unusable: float = 0.0) -> AdditiveCost:
    """Made-up values of all slots; a share of them cannot be used."""
    cost = AdditiveCost.from_slots(space, lambda *_: float(rng.random()))
    parts = [
        Part(part.genes, np.where((rng.random(part.values.shape) < unusable) & (part.values > 0), np.inf, part.values))
        for part in cost.parts
    ]
    return AdditiveCost(space, tuple(parts), float(rng.random()))


def problem_of(
    objective: Objective, space: SearchSpace, genomes: Genomes, rng: np.random.Generator, limits: int, unusable: float
) -> Problem:
    """Random costs, with budgets that a random usable network just keeps."""
    costs = [random_cost(space, rng, unusable) for _ in range(limits)]
    values = np.array([cost.evaluate(genomes) for cost in costs]).reshape(limits, len(genomes))
    usable = np.flatnonzero(np.isfinite(values).all(axis=0))
    anchor = rng.choice(usable) if len(usable) else 0
    budgets = values[:, anchor] if len(usable) else np.full(limits, 1e9)
    constraints = tuple(
        Constraint(f"t{i}", "ms", cost, float(budget))
        for i, (cost, budget) in enumerate(zip(costs, budgets, strict=True))
    )
    return Problem(space, objective, constraints, genomes[anchor])


def best_score(asked: Problem, genomes: Genomes) -> float:
    feasible = genomes[asked.feasible(genomes)]
    return float(asked.objective.scores(asked.space, feasible).max())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), unusable=st.sampled_from([0.0, 0.1]))
def test_sums_are_maximised_exactly(seed: int, unusable: float) -> None:
    rng = np.random.default_rng(seed)
    costs = [random_cost(TINY, rng, unusable), random_cost(TINY, rng)]
    sums = Sums.of(TINY, costs)
    values, prices = rng.normal(size=(int(TINY.n_choices.sum()), 5)), rng.random((2, 5))
    some = tuple(np.sort(rng.choice(n, rng.integers(1, n + 1), replace=False)) for n in TINY.n_choices)
    inside = ALL[np.all([np.isin(ALL[:, g], some[g]) | inactive(g) for g in range(len(some))], axis=0)]
    of_all = sums.ones(inside) @ values - sums.costs_of(inside).T @ prices
    expected = of_all.max(axis=0)
    if (expected < -1e9).any():
        return  # nothing there can be used
    assert sums.highest(values, prices, some) == pytest.approx(expected)
    found = sums.best(values, prices, some)
    totals = (sums.ones(found) * values.T).sum(axis=1) - (sums.costs_of(found) * prices).sum(axis=0)
    assert totals == pytest.approx(expected)


def inactive(gene: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Where a gene has no effect in all networks."""
    of = TINY.genes[gene]
    return np.zeros(len(ALL), np.bool_) if of.switch is None else ALL[:, of.switch] < of.switch_from


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), limits=st.integers(0, 3), unusable=st.sampled_from([0.0, 0.05]))
def test_sums_under_budgets_are_maximised_exactly(seed: int, limits: int, unusable: float) -> None:
    rng = np.random.default_rng(seed)
    score = random_cost(TINY, rng)
    asked = problem_of(Macs(), TINY, ALL, rng, limits, unusable)
    feasible = ALL[asked.feasible(ALL)]
    if not len(feasible):
        return
    costs = [each.cost for each in asked.constraints if isinstance(each.cost, AdditiveCost)]
    budgets = [each.budget for each in asked.constraints]
    expected = score.evaluate(feasible).max()
    known = float(score.evaluate(feasible[:1])[0])
    best = AdditiveProblem.of(score, costs, budgets).best(known, time.perf_counter() + SOON)
    assert best.bound == pytest.approx(expected, rel=1e-9)
    assert best.bound >= expected - 1e-12
    assert best.is_exact
    if best.genome is not None:
        assert asked.feasible(best.genome[np.newaxis]).all()
        assert score.evaluate(best.genome[np.newaxis])[0] == pytest.approx(expected, rel=1e-12)
    no_time = AdditiveProblem.of(score, costs, budgets).best(known, 0.0)
    assert no_time.bound >= expected - 1e-12


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    hidden=st.sampled_from([(), (6,), (8, 8), (6, 6, 6)]),
    limits=st.integers(0, 2),
    unusable=st.sampled_from([0.0, 0.05]),
)
def test_no_network_is_above_the_bound(seed: int, hidden: tuple[int, ...], limits: int, unusable: float) -> None:
    rng = np.random.default_rng(seed)
    objective = PredictedAccuracy(random_predictor(TINY, seed, hidden))
    asked = problem_of(objective, TINY, ALL, rng, limits, unusable)
    if not asked.feasible(ALL).any():
        return
    best = best_score(asked, ALL)
    costs = [each.cost for each in asked.constraints if isinstance(each.cost, AdditiveCost)]
    relaxation = Relaxation(objective.predictor.network(TINY), costs, [each.budget for each in asked.constraints])
    for steps in (0, 10):
        root = relaxation.root(steps)
        rounding = relaxation.rounding(root)
        assert root.bound + rounding >= best
        assert rounding < 1e-4
        for units in (0, 100):  # all parts together are the whole
            parts = branching._divided(TINY, root.domain, int(rng.integers(1, len(TINY.genes))))
            split = relaxation.split(root, parts, best - rounding, 3, units)
            assert max(part.bound for part in split) + rounding >= best
        assert relaxation.without_losers(root, best - rounding) is not None
    anchor = float(objective.scores(TINY, asked.anchor[np.newaxis])[0])
    early, late = prove(asked, anchor, 0.0), prove(asked, anchor, SOON)
    assert early is not None
    assert late is not None
    assert early.score >= best
    assert late.score == pytest.approx(best, abs=ROUNDING)
    assert late.is_exact


@pytest.mark.parametrize("precision", ["fp32", "int8", "mixed"])
def test_mixed_precision(precision: str) -> None:
    mixed = MixedSpace.of(ONE_STAGE)
    predictor = random_predictor(mixed, 3)
    space, objective = (
        (mixed, PredictedAccuracy(predictor))
        if precision == "mixed"
        else (ONE_STAGE, AccuracyInPrecision(predictor, precision))
    )
    genomes = everything(space)
    asked = problem_of(objective, space, genomes, np.random.default_rng(5), 1, 0.0)
    anchor = float(objective.scores(space, asked.anchor[np.newaxis])[0])
    early, late = prove(asked, anchor, 0.0), prove(asked, anchor, SOON)
    assert early is not None
    assert late is not None
    assert early.score >= best_score(asked, genomes)
    assert late.score == pytest.approx(best_score(asked, genomes), abs=ROUNDING)


def test_parts_are_scored_only_where_they_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branching, "MOST_SCORED", 40)
    predictor = random_predictor(TINY, 1)
    scored = []

    def highest(genomes: Genomes) -> float:
        scored.append(len(genomes))
        return float(predictor.predict_genomes(TINY, genomes).max())

    search = Branching(Relaxation(predictor.network(TINY), [], []), highest, 0.0)
    search.run(time.perf_counter() + SOON)
    assert search.is_exact
    assert search.best == search.bound == pytest.approx(predictor.predict_genomes(TINY, ALL).max(), abs=ROUNDING)
    assert sum(scored) < 0.75 * len(ALL)


# --- the engine, and what has no bound ------------------------------------------------------------------


def test_the_engine_finds_the_best_network() -> None:
    predictor = random_predictor(TINY, 7)
    asked = problem_of(PredictedAccuracy(predictor), TINY, ALL, np.random.default_rng(2), 1, 0.0)
    weak = Evolutionary(population=4, parents=2, generations=1, polish_rounds=0)
    result = Exact(start=weak).search(asked, np.random.default_rng(0))
    assert result.score == pytest.approx(best_score(asked, ALL), abs=ROUNDING)
    assert result.bound is not None
    assert result.bound.is_exact
    stopped = Exact(start=weak, seconds=0.0).search(asked, np.random.default_rng(0))
    assert stopped.bound is not None
    assert stopped.bound.score >= result.score


class NoSum(Cost):
    def __init__(self, cost: AdditiveCost) -> None:
        self.space, self._cost = cost.space, cost

    def evaluate(self, genomes: Genomes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return self._cost.evaluate(genomes)


def test_scaled_costs_have_bounds_and_others_have_none() -> None:
    cost = random_cost(TINY, np.random.default_rng(0))
    budget = float(np.median(cost.evaluate(ALL)))

    def asked(limited: Cost, factor: float = 1.0) -> Problem:
        constraints = (Constraint("board", "ms", limited, budget * factor),)
        return Problem(TINY, Macs(), constraints, find_anchor(TINY, constraints, np.random.default_rng(0)))

    plain, scaled = (prove(each, 0.0, SOON) for each in (asked(cost), asked(ScaledCost(TINY, cost, 2.0), 2.0)))
    assert plain == scaled is not None
    opaque = asked(NoSum(cost))
    assert prove(opaque, 0.0, SOON) is None
    assert why_unbounded(opaque) == "the cost of board is no sum over ops"
    with pytest.raises(UsageError, match="the engine exact cannot search here: the cost of board is no sum over ops"):
        get_engine("exact").search(opaque, np.random.default_rng(0))
