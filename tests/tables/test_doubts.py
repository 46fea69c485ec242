"""Doubts: everything that says that the numbers of a table may be wrong."""

from __future__ import annotations

from dataclasses import replace
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
    rows = [replace(row, extra={"half_width": "0.05"}) for row in ROWS[:3]]
    table = table_of(*rows, device={"uncontrolled": ["no temperature can be read"]}, sampling={"cut_short": 2})
    assert [str(doubt) for doubt in table.doubts] == [
        "note: table board: no temperature can be read",
        f"warning: table board: {len(ROWS)} of {len(ROWS)} ops are noisy (medians uncertain by more than 2%); "
        "resume with a longer --time-limit, or close other programs and measure again with --fresh",
    ]
    assert table.warnings == [str(table.doubts[1]).partition("warning: ")[2].partition(";")[0]]


@pytest.mark.parametrize("metadata", [{"device": 3, "sampling": []}, {"device": {"uncontrolled": 3}}, {"device": {}}])
def test_metadata_that_say_nothing(metadata: dict[str, Any]) -> None:
    assert table_of(**metadata).doubts == ()
