"""Several tables for one search."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.paths import ROOT

from ofa_profiler.errors import UsageError
from ofa_search.cli.tables import read_tables


def copies(folder: Path, *names: str) -> list[str]:
    """Copies of a table, at these paths."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".csv", ".json"):
            source = ROOT / "latency_tables" / f"epyc-cifar-mbv3{suffix}"
            shutil.copy(source, (folder / name).with_suffix(suffix))
    return [str(folder / name) for name in names]


def test_tables_of_one_name_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = copies(tmp_path, "a/board.csv", "b/board.csv", "c/board-2.csv", "d/board.csv")
    names = [table.name for table in read_tables(paths, "fp32")]
    assert names == ["board", "board-3", "board-2", "board-4"]
    assert f"{paths[3]} is called board-4 here" in capsys.readouterr().err


def test_a_table_given_twice_is_a_mistake(tmp_path: Path) -> None:
    (path,) = copies(tmp_path, "board.csv")
    with pytest.raises(UsageError, match=r"board\.csv is given twice"):
        read_tables([path, path], "fp32")
