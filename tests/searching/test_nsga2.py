"""Fronts of NSGA-II."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.problems import Bumpy, problem
from support.small_spaces import TINY, everything

from ofa_search.searching.engines.nsga2 import Nsga2, first_front, survivors


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 60), columns=st.integers(1, 3))
def test_the_first_front_is_what_nothing_beats(seed: int, count: int, columns: int) -> None:
    values = np.random.default_rng(seed).integers(0, 8, (count, columns)).astype(float)
    kept = first_front(values)
    for row in range(count):
        beaten = ((values <= values[row]).all(axis=1) & (values < values[row]).any(axis=1)).any()
        repeated = (values[:row] == values[row]).all(axis=1).any()
        assert (row in kept) == (not beaten and not repeated)


def test_survivors_are_the_ends_and_the_emptier_places_of_a_front() -> None:
    first = np.array([[0.0, 10.0], [1.0, 9.0], [1.1, 8.9], [1.2, 8.8], [6.0, 4.0], [10.0, 0.0]])
    behind = first + 0.5
    kept, ranks = survivors(np.vstack([behind, first]), 4)
    assert set(kept) == {6, 11, 10, 9}
    assert ranks.tolist() == [0, 1, 2, 3]
    kept, _ = survivors(np.vstack([behind, first]), 8)
    assert set(range(6, 12)) < set(kept)


def test_the_front_of_a_small_space() -> None:
    asked = problem(TINY, (0.6, 0.7))
    every = everything(TINY)
    every = every[asked.feasible(every)]
    scores = Bumpy(TINY).scores(TINY, every)
    values = np.column_stack([-scores, *(each.cost.evaluate(every) for each in asked.constraints)])
    best = {tuple(row) for row in values[first_front(values)]}
    front = Nsga2().front(asked, np.random.default_rng(0), evaluations=len(every) // 2)
    assert asked.feasible(front.genomes).all()
    assert (np.diff(front.scores) <= 0).all()
    assert front.scores[0] == scores.max()
    found = {tuple(row) for row in np.column_stack([-front.scores, front.costs])}
    assert len(found & best) > 0.7 * len(best)
    whole = Nsga2(generations=300).front(asked, np.random.default_rng(0))
    assert len({tuple(row) for row in np.column_stack([-whole.scores, whole.costs])} & best) > 0.95 * len(best)


def test_the_front_contains_the_result_of_the_engine() -> None:
    asked = problem()
    result = Nsga2(generations=10).search(asked, np.random.default_rng(3))
    front = Nsga2(generations=10).front(asked, np.random.default_rng(3))
    assert (front.genomes[0] == result.genome).all()
    assert front.scores[0] == result.score
