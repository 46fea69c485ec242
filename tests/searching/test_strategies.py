"""Fronts: monotone, free of dominated networks, and about as good as a search for each budget."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import ROOT

from ofa_profiler import LatencyTable, MixedTable, get_space
from ofa_profiler.errors import InfeasibleError
from ofa_profiler.spaces import Genomes
from ofa_search import AccuracyPredictor, Macs, search_each
from ofa_search.artifacts.shipped import shipped_predictor
from ofa_search.searching.engines.annealing import Annealing
from ofa_search.searching.engines.evolutionary import Evolutionary
from ofa_search.searching.engines.random import Random
from ofa_search.searching.problem import Mask
from ofa_search.searching.result import SearchResult
from ofa_search.searching.strategies import Front, InOrder, Rows, Solved, between

SPACE = get_space("cifar-mbv3")
FP32, INT8 = (
    LatencyTable.load(ROOT / "latency_tables" / f"epyc-cifar-mbv3-onnxruntime-{name}-t1.csv")
    for name in ("fp32", "int8")
)
SHORT = Evolutionary(
    annealing=Annealing(chains=8, proposals=4, rounds=20, renewal_rounds=5, starts_per_chain=1), polish_rounds=0
)


def predictor(name: str = "fp32") -> AccuracyPredictor:
    path = shipped_predictor(SPACE.name, name)
    assert path is not None
    return AccuracyPredictor.load(path)


@given(st.sets(st.integers(0, 60), min_size=1))
def test_all_between_once(numbers: set[int]) -> None:
    first = sorted(numbers)
    found = list(between(first))
    assert sorted([*first, *found]) == list(range(first[0], first[-1] + 1))


class Made(Rows):
    """Networks are numbers; a network keeps a row if it is at most the row's budget. A search finds what is given."""

    genes = 1

    def __init__(self, budgets: list[int], finds: list[int]) -> None:
        self.budgets, self.finds, self.asked = budgets, finds, [0] * len(budgets)

    @property
    def count(self) -> int:
        return len(self.budgets)

    def solve(self, number: int, found: Genomes, *, quick: bool = False, share: float = 1.0) -> Solved:
        self.asked[number] += 1
        network = min(self.finds[number], self.budgets[number])
        score, bound = float(network % 7 * 10 + network // 7), 70.0 + number
        taken, allowed = {"t": float(network)}, {"t": float(self.budgets[number])}
        result = SearchResult(SPACE.smallest, None, taken, allowed, 0, 0, "", 0, 1, 0.0, score=score, bound=bound)
        return Solved(np.array([[network]], dtype=np.int8), result)

    def keeps(self, number: int, genomes: Genomes) -> Mask:
        keeps: Mask = genomes[:, 0] <= self.budgets[number]
        return keeps

    def settled(self, solved: Solved, best: Solved, bound: float | None) -> SearchResult:
        return replace(best.result, budget_ms=solved.result.budget_ms, bound=bound)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=40))
def test_each_row_gets_the_best_of_all_that_keep_it(pairs: list[tuple[int, int]]) -> None:
    budgets = sorted(budget for budget, _ in pairs)
    rows = Made(budgets, [found for _, found in pairs])
    results = Front().run(rows)
    assert rows.asked == [1] * len(budgets)
    networks = [min(found, budget) for budget, found in zip(budgets, rows.finds, strict=True)]
    for budget, result in zip(budgets, results, strict=True):
        best = max(n % 7 * 10 + n // 7 for n in networks if n <= budget)
        assert (result.score, result.budget_ms) == (best, {"t": float(budget)})
    assert [result.bound for result in results] == [70.0 + number for number in range(len(budgets))]
    scores = [result.score for result in results]
    assert scores == sorted(scores)


@pytest.mark.parametrize("engine", [SHORT, Random(batch=64, rounds=4)])
@pytest.mark.parametrize("options", [{}, {"confidence": 0.9, "max_macs": 15e6, "fix": {"depth": [2, 3]}}])
def test_a_front_is_monotone_and_has_no_dominated_network(engine: Evolutionary, options: dict[str, object]) -> None:
    low, high = 0.45, 1.3
    rows = [[float(budget)] for budget in np.linspace(low, high, 6)]
    results = search_each(SPACE, [FP32], rows, predictor(), engine=engine, strategy=Front(), **options)  # type: ignore[arg-type]
    _check_front(rows, results)


def _check_front(rows: list[list[float]], results: tuple[SearchResult, ...]) -> None:
    for (budget,), result in zip(rows, results, strict=True):
        (ms,) = result.latency_ms.values()
        assert ms <= budget
        assert result.budget_ms == {next(iter(result.latency_ms)): budget}
        assert result.bound is not None
        assert result.bound >= result.score
        better = [each for each in results if each.score > result.score and next(iter(each.latency_ms.values())) <= ms]
        assert better == []
    assert [each.score for each in results] == sorted(each.score for each in results)
    bounds = [each.bound for each in results if each.bound is not None]
    assert all(a <= b + 1e-9 for a, b in pairwise(bounds))


@pytest.mark.slow
def test_a_front_in_mixed_precision() -> None:
    rows = [[0.35], [0.4], [0.45], [0.5], [0.6]]
    space = get_space("cifar-mbv3-mixed")
    results = search_each(
        space, [MixedTable.of([FP32, INT8])], rows, predictor("mixed"), engine=SHORT, strategy=Front()
    )
    _check_front(rows, results)


@pytest.mark.long
def test_little_is_lost() -> None:
    """Against a search of its own for each budget."""
    rows = [[float(budget)] for budget in np.linspace(0.5, 1.4, 12)]
    front = search_each(SPACE, [FP32], rows, predictor(), strategy=Front())
    alone = [search_each(SPACE, [FP32], [row], predictor())[0] for row in rows]
    lost = np.array([one.score - of_front.score for one, of_front in zip(alone, front, strict=True)])
    assert lost.mean() < 0.0003
    assert lost.max() < 0.0015


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 99))
def test_networks_to_start_from_are_used(seed: int) -> None:
    """What another search found is the least that a quick one finds."""
    start = SPACE.decode(SPACE.sample_genomes(np.random.default_rng(seed), 40))
    for strategy in (InOrder(), InOrder(quick=True, share=0.1)):
        (result,) = search_each(SPACE, [FP32], [[0.7]], Macs(), engine=SHORT, start=start, strategy=strategy)
        kept = [a for a, ms in zip(start, FP32.predict_ms(start), strict=True) if ms <= 0.7]
        assert result.macs >= max((SPACE.macs(a) for a in kept), default=0)


def test_a_row_without_a_network_is_an_error() -> None:
    with pytest.raises(InfeasibleError, match="attainable"):
        search_each(SPACE, [FP32], [[0.01], [0.7]], Macs(), engine=SHORT, strategy=Front())
