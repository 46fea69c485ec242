"""A CSV that does not belong to its JSON, or that lost rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.errors import InputFileError
from ofa_profiler.networks.op import Op
from ofa_profiler.tables.table import Row
from ofa_profiler.verification.conditions import covered_space
from ofa_search import Macs, search

SPACE = get_space("cifar-mbv3")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A table of all resolutions, whose JSON names them."""
    ops = SPACE.unique_ops(SPACE.valid_resolutions)
    rows = [Row.from_op(op, batch=1, precision="fp32", samples_ms=[op.macs / 1e6 + 0.1] * 3) for op in ops]
    metadata = {"batch": 1, "precision": "fp32", "spaces": [SPACE.name], "resolutions": list(SPACE.valid_resolutions)}
    LatencyTable("board", tuple(rows), metadata).save(tmp_path / "board.csv")
    return tmp_path / "board.csv"


@pytest.mark.parametrize(("name", "value"), [("batch", 8), ("batch", "1"), ("precision", "int8")])
def test_a_csv_of_another_batch_or_precision_than_its_json(path: Path, name: str, value: object) -> None:
    LatencyTable.load(path)
    described = {**json.loads(path.with_suffix(".json").read_text()), name: value}
    path.with_suffix(".json").write_text(json.dumps(described))
    with pytest.raises(
        InputFileError, match=rf"board\.csv, row 2: column {name}: is .*, but the JSON .* {value!r}; they"
    ):
        LatencyTable.load(path)


def lose(path: Path, lost: Iterable[Op]) -> LatencyTable:
    """The table without the rows of these ops."""
    keys = {op.key for op in lost}
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if line.partition(",")[0] not in keys))
    return LatencyTable.load(path)


def ops_at(resolution: int) -> list[Op]:
    """The ops of one resolution alone."""
    shared = {op for other in SPACE.valid_resolutions if other != resolution for op in SPACE.unique_ops([other])}
    return [op for op in SPACE.unique_ops([resolution]) if op not in shared]


@pytest.mark.parametrize("described", [True, False], ids=["json", "no json"])
@pytest.mark.parametrize("count", [1, 5])
def test_lost_rows_of_a_resolution_are_an_error(path: Path, described: bool, count: int) -> None:
    if not described:
        path.with_suffix(".json").unlink()
    assert LatencyTable.load(path).complete_resolutions(SPACE) == SPACE.valid_resolutions
    last = max(SPACE.valid_resolutions)
    table = lose(path, ops_at(last)[-count:])
    assert table.resolutions(SPACE) == SPACE.valid_resolutions[:-1]
    total, first = len(SPACE.unique_ops([last])), re.escape(ops_at(last)[-count].key)
    problem = (
        rf"board\.csv: rows were lost: {count} of the {total} ops of {SPACE.name} at resolution {last} are missing"
    )
    uses: list[Callable[[], object]] = [
        lambda: table.complete_resolutions(SPACE),
        lambda: search(SPACE, [(table, 1e6)], Macs()),
        lambda: covered_space(table, SPACE),
    ]
    for use in uses:
        with pytest.raises(InputFileError, match=f"{problem}, for example {first}; run ofa-profile again: it restores"):
            use()


def test_a_lost_resolution_is_an_error_if_the_json_names_it(path: Path) -> None:
    last = max(SPACE.valid_resolutions)
    table = lose(path, ops_at(last))
    with pytest.raises(InputFileError, match=f"at resolution {last} are missing"):
        table.complete_resolutions(SPACE)
    path.with_suffix(".json").unlink()  # then the table is one of the other resolutions
    assert LatencyTable.load(path).complete_resolutions(SPACE) == SPACE.valid_resolutions[:-1]
