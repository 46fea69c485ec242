"""`ofa-search --ladder`, with the table and the networks of this repository, and its networks in the runtime."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT

from ofa_profiler import Architecture, LatencyTable
from ofa_search.cli.search import main
from ofa_search.ladder import Ladder

TABLE = ROOT / "latency_tables" / "epyc-cifar-mbv3.csv"


def command(*arguments: str) -> list[str]:
    return ["--lut", str(TABLE), "--evaluations", "150", *arguments]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a ladder of three budgets, which are given in no order."""
    out = tmp_path_factory.mktemp("ladder") / "found"
    assert main(command("--ladder", "0.5ms,0.2ms,0.8ms,500us", "--out", str(out))) == 0
    return out


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def test_each_rung_is_slower_and_better_than_the_last(out: Path) -> None:
    rungs = read(out / "ladder.json")["rungs"]
    assert [rung["budget_ms"] for rung in rungs] == [0.2, 0.5, 0.8]
    for lower, upper in pairwise(rungs):
        assert lower["expected_ms"] < upper["expected_ms"]
        assert lower["accuracy"] < upper["accuracy"]
    table = LatencyTable.load(TABLE)
    for rung in rungs:
        architecture = Architecture.load(out / rung["files"]["architecture"])
        assert rung["expected_ms"] == pytest.approx(table.predict_ms([architecture])[0])
        assert rung["expected_ms"] <= rung["budget_ms"]
        assert rung["resolution"] == architecture.resolution


def test_its_files_are_those_of_the_rungs(out: Path) -> None:
    ladder, summary = read(out / "ladder.json"), read(out / "search.json")
    named = {name for rung in ladder["rungs"] for name in rung["files"].values()}
    assert named == {path.name for path in out.iterdir()} - {"ladder.json", "search.json", "search.html"}
    assert [result["predicted_accuracy"] for result in summary["results"]] == [r["accuracy"] for r in ladder["rungs"]]
    assert (ladder["table"], ladder["runtime"], ladder["threads"]) == ("epyc-cifar-mbv3", "onnxruntime", 1)
    assert len(ladder["labels"]) == 10


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_the_networks_serve_frames(out: Path, runtime: str) -> None:
    """Whatever the speed of this machine: under an unreachable target the fastest one, under a loose one the best."""
    frames = {size: np.random.default_rng(0).random((1, 3, size, size), np.float32) for size in (24, 28, 32)}
    predicted = {}
    for target_ms in (1e-6, 1e6):
        ladder = Ladder.load(out, target_ms, runtime=runtime, warm_up=1)
        served = [ladder.run(frames[ladder.shape[2]]) for _ in range(5)]
        rung = ladder.rungs[-1] if target_ms > 1 else min(ladder.rungs, key=lambda rung: rung.expected_ms)
        assert [frame.rung for frame in served] == [rung] * 5
        assert all(frame.kept == (target_ms > 1) and frame.ms > 0 for frame in served)
        assert all(np.array_equal(frame.outputs, served[0].outputs) for frame in served)
        predicted[target_ms] = served[0].outputs
    low, high = predicted.values()
    assert low.shape == high.shape == (1, 10)
    assert not np.allclose(low, high)


def test_the_page_runs(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of docs/ladder.md, as a reader runs it."""
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "ladder.md").read_text(), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(out.parent)
    names: dict[str, Any] = {
        "camera": [0.1, 0.2, 0.3],
        "prepared": lambda image, size: np.full((1, 3, size, size), image, np.float32),
    }
    exec(block.replace('"out/search"', f'"{out.name}"'), names)
    assert 0 <= names["served"].outputs.argmax() < 10
    assert names["served"].rung in names["ladder"].rungs


def test_budgets_with_the_same_network_are_one_rung(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The largest network keeps both of the last ones. MACs are no accuracy."""
    arguments = ["--ladder", "0.3ms,5ms,6ms", "--predictor", "macs", "--no-export", "--out", str(tmp_path)]
    assert main(["--lut", str(TABLE), *arguments, "--json"]) == 0
    said = capfd.readouterr()
    assert "note: 1 of 3 budgets give no rung, as a network that is no slower is as good" in said.err
    rungs = read(tmp_path / "ladder.json")["rungs"]
    assert [rung["budget_ms"] for rung in rungs] == [0.3, 5.0]
    assert [rung["accuracy"] for rung in rungs] == [None, None]
    assert rungs[0]["score"] < rungs[1]["score"]
    assert [list(rung["files"]) for rung in rungs] == [["architecture"]] * 2
    assert len(json.loads(said.out)["results"]) == 2


@pytest.mark.long
def test_rungs_that_are_measured(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On another machine than that of the table, a budget may be impossible to keep."""
    asked = ["--lut", str(TABLE), "--ladder", "0.6ms,50ms", "--verify", "local", "--out", str(tmp_path)]
    code = main([*asked, "--json"])
    said = capfd.readouterr()
    assert code in (0, 5), said.err
    results = {result["budget_ms"][TABLE.stem]: result for result in json.loads(said.out)["results"]}
    rungs = read(tmp_path / "ladder.json")["rungs"]
    assert [rung["budget_ms"] for rung in rungs] == list(results)
    assert 50.0 in results
    assert results[50.0]["measured_latency_ms"][TABLE.stem] < 50
    for rung in rungs:
        assert rung["accuracy"] == results[rung["budget_ms"]]["predicted_accuracy"]
        assert all((tmp_path / name).is_file() for name in rung["files"].values())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--ladder", "10ms"], 2, "--ladder '10ms': give two different budgets or more, for example 10ms,20ms"),
        (["--ladder", "10ms,10ms"], 2, "two different budgets"),
        (["--ladder", ","], 2, "two different budgets"),
        (["--ladder", "10,20"], 2, "has no unit"),
        (["--ladder", "10ms,,20ms"], 2, "two different budgets"),
        (["--ladder", "10ms,20ms", "--pareto", "10ms:20ms:2"], 2, "not both"),
        (["--ladder", "10ms,20ms", "--budget", "1ms", "--per-device"], 2, "--ladder is for one goal"),
        (["--ladder", "1us,1ms"], 3, "attainable"),
    ],
)
def test_mistakes_are_one_line(
    arguments: Sequence[str], code: int, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(command(*arguments, "--no-export")) == code
    said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert len(said) == 1
    assert words in said[0]
