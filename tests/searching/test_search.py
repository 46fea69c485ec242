"""`search`: tables and an objective become an architecture."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ofa_search
from ofa_profiler import LatencyTable, get_space
from ofa_profiler.errors import InfeasibleError, InputFileError, UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.tables.table import Row
from ofa_search import AccuracyPredictor, Macs, Objective, search, search_each

CIFAR = get_space("cifar-mbv3")


def make_table(
    name: str = "board",
    ms: Callable[[Op], float] = lambda op: op.macs / 1e6 + 0.05,
    resolutions: tuple[int, ...] = CIFAR.resolutions,
    failed: Callable[[Op], bool] = lambda op: False,
) -> LatencyTable:
    rows = [
        Row.failed(op, batch=1, precision="fp32", error="out of memory")
        if failed(op)
        else Row.from_op(op, batch=1, precision="fp32", samples_ms=[ms(op)] * 3)
        for op in CIFAR.unique_ops(resolutions)
    ]
    return LatencyTable(name, tuple(rows), {"spaces": ["cifar-mbv3"]})


@pytest.fixture(scope="module")
def note10(shared_dir: Path) -> LatencyTable:
    return LatencyTable.load(shared_dir / "data" / "ofa" / "note10")


@pytest.fixture(scope="module")
def predictor(shared_dir: Path) -> AccuracyPredictor:
    return AccuracyPredictor.load(shared_dir / "data" / "ofa" / "acc_predictor.pth")


# --- real parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_the_published_table_and_predictor_at_25_ms(
    note10: LatencyTable, predictor: AccuracyPredictor, seed: int
) -> None:
    result = search("ofa-mbv3-w1.2", [(note10, 25.0)], predictor, seed=seed)
    assert result.predicted_accuracy is not None
    assert result.predicted_accuracy >= 0.8195  # the authors' code reaches 0.814 to 0.818
    assert result.predicted_accuracy == predictor.predict([result.architecture])[0]
    assert result.latency_ms["note10"] == pytest.approx(note10.predict_ms([result.architecture])[0], rel=1e-12)
    assert result.latency_ms["note10"] <= 25.0


def test_only_resolutions_that_table_and_predictor_know(note10: LatencyTable, predictor: AccuracyPredictor) -> None:
    """The table holds 164, the predictor 144; neither is known to both."""
    space = get_space("ofa-mbv3-w1.2")
    assert 164 in note10.resolutions(space)
    assert 144 in predictor.resolutions
    tight, loose = search_each(space, [note10], [[11.0], [500.0]], predictor)
    assert tight.architecture.resolution == 160
    assert loose.architecture.resolution in (160, 176, 192, 208, 224)
    macs = search(space, [(note10, 500.0)], Macs())
    assert macs.architecture == space.largest


def test_below_the_fastest(note10: LatencyTable, predictor: AccuracyPredictor) -> None:
    space = get_space("ofa-mbv3-w1.2").with_resolutions((160, 176, 192, 208, 224))
    low, high = note10.cost(space).minimum()[0], note10.cost(space).maximum()[0]
    with pytest.raises(InfeasibleError) as caught:
        search(space, [(note10, low * 0.999)], predictor)
    assert caught.value.attainable == (low, high)
    assert search(space, [(note10, low)], predictor).latency_ms["note10"] == low


# --- what is promised ----------------------------------------------------------------------------------


def test_the_result_tells_what_it_costs() -> None:
    table = make_table()
    result = search("cifar-mbv3", [(table, 12.0)], Macs(), seed=3)
    assert result.predicted_accuracy is None
    assert result.macs == CIFAR.macs(result.architecture)
    assert result.params == CIFAR.params(result.architecture)
    assert result.latency_ms == {"board": pytest.approx(table.predict_ms([result.architecture])[0])}
    assert result.budget_ms == {"board": 12.0}
    assert result.seed == 3
    assert result.evaluations > 0
    assert result == replace(
        search("cifar-mbv3", [(table, 12.0)], Macs(), seed=3), search_seconds=result.search_seconds
    )


def test_all_limits_hold_together() -> None:
    fast = make_table("fast", lambda op: op.macs / 4e6 + 0.02)
    odd = make_table("odd", lambda op: 0.1 * op.attributes["kernel_size"])
    free = search("cifar-mbv3", [(fast, 100.0)], Macs())
    result = search(
        "cifar-mbv3", [(fast, 5.0), (odd, 6.5)], Macs(), max_macs=0.6 * free.macs, max_params=0.7 * free.params
    )
    assert result.latency_ms["fast"] <= 5.0
    assert result.latency_ms["odd"] <= 6.5
    assert result.macs <= 0.6 * free.macs
    assert result.params <= 0.7 * free.params


def test_a_budget_above_the_slowest_gives_the_largest() -> None:
    assert search("cifar-mbv3", [(make_table(), 1e6)], Macs()).architecture == CIFAR.largest


@pytest.mark.slow
def test_a_looser_budget_never_gives_a_worse_network() -> None:
    budgets = [[float(b)] for b in np.linspace(4.5, 20, 8)]
    results = search_each("cifar-mbv3", [make_table(ms=lambda op: op.macs / 2e6 + 0.05)], budgets, Macs())
    assert [r.budget_ms["board"] for r in results] == [b for (b,) in budgets]
    macs = [r.macs for r in results]
    assert macs == sorted(macs)
    assert len(set(macs)) > 4


def test_an_objective_of_ones_own() -> None:
    class FewestBlocks(Objective):
        name = "fewness of blocks"

        def scores(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:
            depths = [i for i, gene in enumerate(space.genes) if gene.kind == "depth"]
            return -genomes[:, depths].sum(axis=1).astype(float)

        def accuracy(self, score: float) -> float | None:
            return None

    result = search("cifar-mbv3", [(make_table(), 100.0)], FewestBlocks(), engine="random")
    assert [stage.depth for stage in result.architecture.stages] == [2] * 5
    assert result.engine == "random"


# --- tables that lack something ------------------------------------------------------------------------


def test_failed_ops_are_left_out() -> None:
    """A kernel of 7 does not run on this board: no network has one."""
    table = make_table(failed=lambda op: op.attributes["kernel_size"] == 7)
    result = search("cifar-mbv3", [(table, 1e6)], Macs())
    kernels = {k for stage in result.architecture.stages for k in stage.kernel_sizes}
    assert kernels == {5}


def test_nothing_is_left() -> None:
    table = make_table(failed=lambda op: op.kind == "classifier")
    with pytest.raises(InputFileError, match="failed"):
        search("cifar-mbv3", [(table, 10.0)], Macs())


def test_a_table_of_another_space() -> None:
    with pytest.raises(UsageError, match=r"does not cover ofa-mbv3-w1\.2"):
        search("ofa-mbv3-w1.2", [(make_table(), 10.0)], Macs())


def test_tables_without_a_resolution_in_common() -> None:
    tables = [(make_table("a", resolutions=(24,)), 10.0), (make_table("b", resolutions=(28, 32)), 10.0)]
    with pytest.raises(UsageError, match="none in common"):
        search("cifar-mbv3", tables, Macs())


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan"), float("inf")])
def test_budgets_that_are_none(budget: float) -> None:
    with pytest.raises(UsageError, match="budget"):
        search("cifar-mbv3", [(make_table(), budget)], Macs())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"limits": [(make_table(), "20ms")]}, "a budget must be a number above zero and finite, not '20ms'"),
        ({"limits": make_table()}, "limits must be a list of (table, milliseconds), not <LatencyTable"),
        ({"limits": [make_table()]}, "limits must be a list of (table, milliseconds), not <LatencyTable"),
        ({"limits": (make_table(), 20.0)}, "limits must be a list of (table, milliseconds), not <LatencyTable"),
        ({"seed": -1}, "a seed must be a whole number, 0 or more, not -1"),
        ({"seed": None}, "a seed must be a whole number, 0 or more, not None"),
        ({"executor": 3, "objective": len}, "an executor is one of concurrent.futures, not 3"),
        ({"objective": 5}, "an AccuracyPredictor or a function of an architecture, not 5"),
        ({"max_macs": "300M"}, "a budget must be a number above zero and finite, not '300M'"),
    ],
)
def test_what_cannot_be_searched_with_is_told_in_one_line(wrong: dict[str, Any], words: str) -> None:
    given = {"limits": [(make_table(), 20.0)], "objective": Macs(), **wrong}
    with pytest.raises(UsageError, match=re.escape(words)):
        search("cifar-mbv3", given.pop("limits"), given.pop("objective"), **given)


def test_what_the_package_offers() -> None:
    for name in ofa_search.__all__:
        assert getattr(ofa_search, name) is not None
    with pytest.raises(AttributeError):
        _ = ofa_search.nothing  # type: ignore[attr-defined]
