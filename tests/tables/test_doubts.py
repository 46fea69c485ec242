"""Doubts: everything that says that the numbers of a table may be wrong."""

from __future__ import annotations

from typing import Any

import pytest

from ofa_profiler import get_space
from ofa_profiler.tables.table import LatencyTable, Row

SPACE = get_space("cifar-mbv3").with_resolutions([24])
ROWS = tuple(
    Row.from_op(op, batch=1, precision="fp32", samples_ms=[(op.macs + 1000 + i) / 2e7])
    for i, op in enumerate(SPACE.unique_ops())
)


def table_of(*rows: Row, **metadata: Any) -> LatencyTable:
    return LatencyTable("board", (*rows, *ROWS[len(rows) :]), metadata)


def test_a_good_table() -> None:
    assert table_of().doubts == ()


def test_failed_ops() -> None:
    failed = [Row.failed(op, batch=1, precision="fp32", error="out of memory") for op in SPACE.unique_ops()[:2]]
    (doubt,) = table_of(*failed).doubts
    assert str(doubt).startswith("warning: table board: 2 ops")
    assert doubt.text.endswith("out of memory")


def test_notes_of_the_measurement() -> None:
    table = table_of(
        device={"uncontrolled": ["no temperature can be read"]}, sampling={"cut_short": 3, "noisy": 5, "visits": 9}
    )
    assert [str(doubt) for doubt in table.doubts] == [
        "note: table board: no temperature can be read",
        "note: table board: the time limit stopped 3 ops early; resume with a longer --time-limit",
        "note: table board: 5 ops are noisier than requested after all rounds; close other programs",
    ]


@pytest.mark.parametrize("metadata", [{"device": 3, "sampling": []}, {"device": {"uncontrolled": 3}}, {"device": {}}])
def test_metadata_that_say_nothing(metadata: dict[str, Any]) -> None:
    assert table_of(**metadata).doubts == ()
