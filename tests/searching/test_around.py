"""What surrounds the answer of a search: all of its neighbours, the uniform networks, and a front of quick searches."""

from __future__ import annotations

import numpy as np
import pytest
from support.problems import CIFAR, work_ms
from support.small_spaces import random_predictor

from ofa_profiler import LatencyTable
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.tables.row import Row
from ofa_search import Macs, search
from ofa_search.searching.api import problem_of
from ofa_search.searching.around import Around, undominated
from ofa_search.searching.engines.evolutionary import Evolutionary
from ofa_search.searching.engines.moves import neighbours
from ofa_search.searching.objectives import Objective, PredictedAccuracy

ROWS = [Row.from_op(op, batch=1, precision="fp32", samples_ms=[work_ms(op)] * 3) for op in CIFAR.unique_ops()]
BOARD = LatencyTable("board", tuple(ROWS), {"spaces": ["cifar-mbv3"]})
LOW, HIGH = (getattr(BOARD.cost(CIFAR), end)()[0] for end in ("minimum", "maximum"))
BUDGET = (LOW + HIGH) / 2
QUICK = Evolutionary(population=128, parents=32, generations=15, polish_rounds=2)


def around(objective: Objective, budget_ms: float = BUDGET, max_params: float | None = None) -> Around:
    result = search(CIFAR, [(BOARD, budget_ms)], objective, engine=QUICK, max_params=max_params, evaluations=500)
    return Around(problem_of(CIFAR, [BOARD], result, objective, max_params=max_params), [BOARD])


@pytest.fixture(scope="module")
def accurate() -> Around:
    return around(PredictedAccuracy(random_predictor(CIFAR, 0)))


def test_every_change_of_one_choice(accurate: Around) -> None:
    problem = accurate.problem
    genomes = neighbours(problem.space, problem.anchor)
    assert {change.network.architecture for change in accurate.changes} == set(problem.space.decode(genomes))
    answer = accurate.answer
    for change in accurate.changes:
        gene = next(i for i, gene in enumerate(problem.space.genes) if gene.name == change.choice)
        row = problem.space.encode([change.network.architecture])[0]
        choices = problem.space.genes[gene].choices
        assert (choices[problem.anchor[gene]], choices[row[gene]]) == (change.before, change.after)
        assert change.network.score is not None
        assert answer.score is not None
        assert change.score_change == change.network.score - answer.score
        ms = BOARD.predict_ms([change.network.architecture])[0]
        assert change.latency_change_ms["board"] == pytest.approx(ms - answer.latency_ms["board"])
        assert change.network.keeps_limits == (ms <= BUDGET)


def test_uniform_networks(accurate: Around) -> None:
    uniform = accurate.uniform
    assert uniform["smallest"].architecture == CIFAR.smallest
    assert uniform["largest"].architecture == CIFAR.largest
    middle = uniform["middle"].architecture
    assert middle.resolution == 28
    assert {stage.depth for stage in middle.stages} == {3}
    assert {kernel for stage in middle.stages for kernel in stage.kernel_sizes} == {5}
    assert uniform["smallest"].keeps_limits
    assert not uniform["largest"].keeps_limits


@pytest.mark.parametrize("max_params", [None, 600_000])
def test_the_quick_front_keeps_the_other_limits(max_params: float | None) -> None:
    found = around(Macs(), max_params=max_params)
    assert len(found.front) >= 3
    assert all(CIFAR.params(network.architecture) <= (max_params or np.inf) for network in found.front)
    front = undominated([*found.front, found.answer], "board")
    milliseconds, scores = ([network.latency_ms["board"] for network in front], [network.score for network in front])
    assert milliseconds == sorted(milliseconds)
    assert scores == sorted(scores, key=lambda score: score or 0.0)
    assert len(set(scores)) == len(front)


class Expensive(Macs):
    """Nothing may ask it for a score beside the search."""

    default_evaluations = 100

    def scores(self, space: SearchSpace, genomes: Genomes) -> np.ndarray:
        raise AssertionError("it was asked")


def test_an_expensive_objective_is_not_asked(accurate: Around) -> None:
    problem = accurate.problem
    found = Around(type(problem)(problem.space, Expensive(), problem.constraints, problem.anchor), [BOARD])
    assert found.front == ()
    assert all(network.score is None for network in found.uniform.values())
    assert {change.score_change for change in found.changes} == {None}
    milliseconds = [change.latency_change_ms["board"] for change in found.changes]
    assert milliseconds == sorted(milliseconds)
