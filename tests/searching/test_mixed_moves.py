"""Searches in mixed precision: the moves, and results against those of one precision and an exact optimum."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.mixed_problems import fp32_ms, mixed_problem
from support.spaces import SmallSpace

from ofa_profiler import get_space, space_names
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search.searching.engines import Engine
from ofa_search.searching.engines.evolutionary import Evolutionary
from ofa_search.searching.engines.moves import crossed, mutated, neighbours, runs
from ofa_search.searching.engines.random import Random
from ofa_search.searching.feasibility import find_anchor
from ofa_search.searching.objectives import Objective
from ofa_search.searching.problem import Constraint, Problem
from ofa_search.searching.pure import best_of_each

CIFAR = MixedSpace.of(get_space("cifar-mbv3"))
spaces = st.sampled_from(space_names()).map(lambda name: get_space(f"{name}-mixed"))


@pytest.mark.parametrize("share", [0.05, 0.3])
@pytest.mark.parametrize("engine", [Evolutionary(), Random(batch=64, rounds=6)], ids=["evolutionary", "random"])
def test_a_mixed_network_is_never_worse_than_one_of_one_precision(share: float, engine: Engine) -> None:
    made, rng = mixed_problem(CIFAR, share), np.random.default_rng(0)
    pure, evaluations = best_of_each(made, engine, rng)
    assert evaluations > 0
    assert made.feasible(pure).all()
    found = [set(architecture.bits) for architecture in CIFAR.decode(pure)]
    assert found in ([{8}, {32}], [{8}])  # int8 is faster here
    best = engine.search(made, rng, pure)
    assert made.feasible(best.genome[np.newaxis]).all()
    assert best.score >= made.objective.scores(CIFAR, pure).max()


@pytest.mark.slow
def test_the_networks_of_one_precision_are_those_of_a_search_in_it() -> None:
    made = mixed_problem(CIFAR, 0.3)
    pure, _ = best_of_each(made, Evolutionary(), np.random.default_rng(0))
    cost = AdditiveCost.from_ops(CIFAR.plain, fp32_ms)
    alone = Constraint("table", "ms", cost, made.constraints[0].budget)

    class Score(Objective):
        name = "points"

        def scores(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:
            return AdditiveCost.from_ops(space, lambda op: float(np.log1p(op.macs))).evaluate(genomes)

        def accuracy(self, score: float) -> float | None:
            return None

    anchor = find_anchor(CIFAR.plain, [alone], np.random.default_rng(0))
    best = Evolutionary().search(Problem(CIFAR.plain, Score(), (alone,), anchor), np.random.default_rng(1))
    assert made.objective.scores(CIFAR, pure)[1] == pytest.approx(best.score, rel=1e-3)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25, 0.5, 0.8])
def test_the_search_finds_the_exact_optimum_of_a_small_space(share: float) -> None:
    space = MixedSpace.of(SmallSpace())
    every = np.unique(space.canonical(np.array(list(np.ndindex(*space.n_choices)), dtype=np.int8)), axis=0)
    assert len(every) > 20_000
    made, rng = mixed_problem(space, share), np.random.default_rng(0)
    optimum = made.objective.scores(space, every[made.feasible(every)]).max()
    pure, _ = best_of_each(made, Evolutionary(), rng)
    assert Evolutionary().search(made, rng, pure).score == pytest.approx(optimum, abs=1e-9)


def changes(space: SearchSpace, genomes: Genomes) -> NDArray[np.int64]:
    bits = [architecture.bits for architecture in space.decode(genomes)]
    return np.array([sum(a != b for a, b in itertools.pairwise(row)) for row in bits])


@given(space=spaces, seed=st.integers(0, 2**32 - 1))
def test_moves_give_genomes_with_few_more_changes_of_precision(space: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parents = space.sample_genomes(rng, 40)
    first, second = parents[:20], parents[20:]
    # A run adds two changes. The bits of a slot that becomes active are those of the slot before it.
    mutants = space.canonical(mutated(space, first, 0.0, rng))
    assert (changes(space, mutants) <= changes(space, first) + 2).all()
    deeper = space.canonical(mutated(space, first, 0.5, rng))
    assert (changes(space, deeper) <= changes(space, first) + 2).all()
    children = space.canonical(crossed(space, first, second, rng))
    assert (changes(space, children) <= changes(space, first) + changes(space, second) + 1).all()
    for moved in (mutants, deeper, children):
        assert (space.encode(space.decode(moved)) == moved).all()


@given(seed=st.integers(0, 2**32 - 1))
def test_runs_and_neighbours_are_valid_and_others(seed: int) -> None:
    (genome,) = CIFAR.sample_genomes(np.random.default_rng(seed), 1)
    for found in (runs(CIFAR, genome), neighbours(CIFAR, genome)):
        assert len(found) > 50
        assert (found != genome).any(axis=1).all()
        assert (CIFAR.canonical(found) == found).all()
    assert not len(
        runs(get_space("cifar-mbv3"), get_space("cifar-mbv3").sample_genomes(np.random.default_rng(0), 1)[0])
    )
