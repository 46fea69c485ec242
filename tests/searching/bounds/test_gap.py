"""The gap of a search's result."""

from __future__ import annotations

import math
import time

import pytest

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.networks.op import Op
from ofa_profiler.tables.table import Row
from ofa_search import AccuracyPredictor, Macs, search
from ofa_search.artifacts.shipped import shipped_predictor
from ofa_search.results.found import Found, document
from ofa_search.results.report import gap_words
from ofa_search.results.weight_source import weight_source
from ofa_search.searching.engines.annealing import Annealing
from ofa_search.searching.engines.evolutionary import Evolutionary
from ofa_search.searching.engines.random import Random
from ofa_search.searching.objectives import Objective, PredictedAccuracy

CIFAR = get_space("cifar-mbv3")
BUDGET_MS = 11.0
SOURCE = weight_source(CIFAR, None, 0, needed=False)
QUICK = Random(batch=64, rounds=4)


def made_up_ms(op: Op) -> float:
    return op.macs / 4e6 + float(op.attributes.get("kernel_size", 1)) ** 2 / 50 + 0.05


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    rows = [Row.from_op(op, batch=1, precision="fp32", samples_ms=[made_up_ms(op)] * 3) for op in CIFAR.unique_ops()]
    return LatencyTable("board", tuple(rows), {"spaces": ["cifar-mbv3"]})


@pytest.fixture(scope="module")
def predictor() -> AccuracyPredictor:
    path = shipped_predictor("cifar-mbv3")
    assert path is not None
    return AccuracyPredictor.load(path)


def test_of_the_included_predictor(table: LatencyTable, predictor: AccuracyPredictor) -> None:
    result = search(CIFAR, [(table, BUDGET_MS)], predictor, engine=QUICK)
    assert result.bound is not None
    assert result.gap == pytest.approx(100 * (result.bound - result.score))
    assert 0 < result.gap < 6
    assert not result.is_optimal
    engine = Evolutionary(polish_rounds=1, annealing=Annealing(chains=8, rounds=60))
    better = search(CIFAR, [(table, BUDGET_MS)], predictor, engine=engine)
    assert result.score < better.score < result.bound  # what a better engine finds is below it
    assert f"at most {math.ceil(100 * result.gap) / 100:.2f} points" in repr(result)
    found = Found(result, PredictedAccuracy(predictor), SOURCE)
    entry = document([found])["results"][0]
    assert entry["gap"] == result.gap
    assert entry["bound"] == pytest.approx(result.bound + predictor.offset)
    assert entry["is_optimal"] is False
    assert "gap to the best possible network at most" in gap_words(found)


def test_of_macs(table: LatencyTable) -> None:
    began = time.perf_counter()
    exact = search(CIFAR, [(table, BUDGET_MS)], Macs(), engine="exact", max_params=9e5)
    assert exact.is_optimal
    assert (exact.gap, exact.bound) == (0.0, exact.macs)
    assert "none, proven" in repr(exact)
    assert time.perf_counter() - began < 30
    found = search(
        CIFAR, [(table, BUDGET_MS)], Macs(), engine=Evolutionary(generations=1, polish_rounds=0), max_params=9e5
    )
    assert found.bound is not None
    assert found.bound >= exact.macs
    assert found.gap == found.bound - found.macs


class NoBound(Macs):
    name = "no bound"
    additive = Objective.additive  # type: ignore[assignment]

    def scores(self, space, genomes):  # type: ignore[no-untyped-def]
        return Macs().scores(space, genomes)


def test_unknown(table: LatencyTable) -> None:
    result = search(CIFAR, [(table, BUDGET_MS)], NoBound(), engine=QUICK)
    assert (result.gap, result.bound, result.is_optimal) == (None, None, False)
    words = gap_words(Found(result, NoBound(), SOURCE))
    assert words == "11 ms: how much better another network could be is unknown: no bound has no bound"
