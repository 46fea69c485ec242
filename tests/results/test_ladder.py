"""The networks of a ladder, from any results: measured latencies count more than predicted ones."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler import get_space
from ofa_search import Macs, SearchResult
from ofa_search.cli import ladder as command
from ofa_search.results.found import Found
from ofa_search.results.ladder import expected_ms, rungs_of
from ofa_search.results.weight_source import weight_source

SPACE = get_space("cifar-mbv3")
SOURCE = weight_source(SPACE, None, 0, needed=False)


ARCHITECTURES = [SPACE.sample(np.random.default_rng(seed)) for seed in range(12)]


def found(number: int, ms: float, score: float, measured_ms: float | None = None) -> Found:
    result = SearchResult(
        ARCHITECTURES[number], None, {"board": ms}, {"board": 100.0}, 1, 1, "random", 0, 1, 0.1, score=score
    )  # fmt: skip
    return Found(result, Macs(), SOURCE, measured_latency_ms=None if measured_ms is None else {"board": measured_ms})


figures = st.tuples(st.floats(1, 9), st.floats(0, 1), st.none() | st.floats(1, 9))


@given(st.lists(figures, min_size=1, max_size=len(ARCHITECTURES)))
def test_each_rung_is_slower_and_better_and_nothing_beats_one(given: list[tuple[float, float, float | None]]) -> None:
    networks = [found(number, *each) for number, each in enumerate(given)]
    rungs = rungs_of(networks, "board")
    for lower, upper in pairwise(rungs):
        assert expected_ms(lower, "board") < expected_ms(upper, "board")
        assert lower.result.score < upper.result.score
    for network in networks:  # each is a rung, or one is as good and no slower
        assert any(
            rung.result.score >= network.result.score and expected_ms(rung, "board") <= expected_ms(network, "board")
            for rung in rungs
        )


def test_of_budgets_with_the_same_network_the_first_counts() -> None:
    """Also if the other measurement of it was faster by luck."""
    tight, loose = found(0, 1.0, 0.5, 1.2), found(0, 1.0, 0.5, 1.1)
    assert rungs_of([tight, loose], "board") == [tight]


@pytest.fixture
def written(tmp_path: Path) -> list[Found]:
    """Two networks with files, of which the better one was measured to be the faster one."""
    networks = [found(0, 1.0, 0.5, 3.0), found(1, 2.0, 0.6, 2.5)]
    for number, network in enumerate(networks):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(b"model")
        object.__setattr__(network, "files", {"onnx": path})
    return networks


def test_what_measuring_rules_out_leaves_no_files(tmp_path: Path, written: list[Found], board: object) -> None:
    rungs = command.finish_ladder(tmp_path, written, board)  # type: ignore[arg-type]
    assert rungs == written[1:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.onnx", "ladder.json", "search.json"]


@pytest.fixture
def board() -> object:
    class Table:
        name = "board"
        metadata = {"runtime": "onnxruntime"}  # noqa: RUF012

    return Table()
