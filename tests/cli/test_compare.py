"""`ofa-compare`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from support.paths import ROOT

from ofa_profiler.cli.compare import main
from ofa_profiler.pages import page

FP32, INT8 = (str(ROOT / "latency_tables" / f"epyc-cifar-mbv3-litert-{p}-t1.csv") for p in ("fp32", "int8"))


def test_json_is_the_only_thing_on_stdout(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main([FP32, INT8, "--json", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    (pair,) = document["comparisons"]
    assert (document["base"], pair["question"], pair["compared"]) == ("epyc-cifar-mbv3-litert-fp32-t1", "settings", 273)
    assert document["files"] == [str(tmp_path / name) for name in ("compare.csv", "compare.html")]
    assert "common factor" in printed.err
    rows = list(csv.DictReader((tmp_path / "compare.csv").open()))
    assert [float(row["ratio"]) for row in rows] == pytest.approx([op["ratio"] for op in pair["ops"]], rel=1e-5)
    html = (tmp_path / "compare.html").read_text()
    assert html.count('class="chart"') == 2


def test_without_plotly_there_is_the_csv_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(page, "find_spec", lambda _name: None)
    assert main([FP32, INT8, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "[report]" in printed.err
    assert printed.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["compare.csv"]


def test_both_files_are_written_or_none(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "compare.csv").mkdir()
    assert main([FP32, INT8, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("ofa-compare: cannot write")
    assert [path.name for path in tmp_path.iterdir()] == ["compare.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([FP32], "two tables at least"),
        ([FP32, FP32], "is given twice"),
        ([FP32, "missing.csv"], "no such file"),
        ([FP32, str(ROOT / "README.md")], "not a latency table"),
        ([FP32, INT8, "--base", "x"], "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
