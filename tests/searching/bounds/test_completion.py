"""Partial networks are given up exactly when no network under the budget completes them."""

from __future__ import annotations

import numpy as np
import pytest
from support.mixed_problems import mixed_problem
from support.problems import CIFAR, Bumpy, constraint, problem
from support.small_spaces import TINY, everything

from ofa_profiler import get_space, space_names
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search.searching.bounds.completion import Completions
from ofa_search.searching.engines.mcts import Mcts
from ofa_search.searching.feasibility import find_anchor
from ofa_search.searching.problem import Problem

ALL = everything(TINY)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_a_choice_is_allowed_if_a_network_under_the_budget_has_it(share: float) -> None:
    asked, rng = problem(TINY, (share,)), np.random.default_rng(0)
    completions = Completions.of(asked)
    feasible = ALL[asked.feasible(ALL)]
    for _ in range(30):
        matching = feasible
        taken, left = np.zeros((1, len(TINY.genes)), dtype=np.int8), completions.left[np.newaxis]
        for number, step in enumerate(completions.steps):
            allowed, added = completions.allowed(number, taken, left)
            choices = np.flatnonzero(allowed[0])
            assert choices.tolist() == np.unique(matching[:, step.gene]).tolist()
            choice = rng.choice(choices)
            taken[0, step.gene], left = choice, left - added[:, choice]
            matching = matching[matching[:, step.gene] == choice]
        assert (matching == taken).all()
        assert len(matching) == 1


def drawn(completions: Completions, space: SearchSpace, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.int8]]:
    """Random networks, choice by allowed choice."""
    nothing, left = np.zeros((count, len(space.genes)), dtype=np.int8), np.tile(completions.left, (count, 1))
    numbers = np.zeros(count, dtype=np.intp)
    genomes = completions.completed(nothing, left, numbers, nothing, 0.0, np.random.default_rng(0))
    return space.canonical(genomes)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.4])
def test_every_path_keeps_one_budget(share: float) -> None:
    for name in space_names():
        asked = problem(get_space(name), (share,))
        assert asked.feasible(drawn(Completions.of(asked), asked.space, 50)).all()
    mixed = mixed_problem(MixedSpace.of(CIFAR), share)
    assert mixed.feasible(drawn(Completions.of(mixed), mixed.space, 50)).all()


def test_most_paths_keep_two_budgets() -> None:
    asked = problem(CIFAR, (0.2, 0.1))
    paths = drawn(Completions.of(asked), CIFAR, 200)
    assert asked.feasible(paths).mean() > 0.5
    assert asked.feasible(CIFAR.sample_genomes(np.random.default_rng(0), 200)).mean() < 0.1


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_the_tree_search_finds_the_best_of_a_small_space(share: float) -> None:
    limit = constraint(TINY, share)
    asked = Problem(TINY, Bumpy(TINY, 3), (limit,), find_anchor(TINY, [limit], np.random.default_rng(0)))
    feasible = ALL[asked.feasible(ALL)]
    best = Bumpy(TINY, 3).scores(TINY, feasible).max()
    found = Mcts(batches=1000).search(asked, np.random.default_rng(0))
    assert found.score == best
    assert found.evaluations <= len(feasible)
