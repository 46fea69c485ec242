"""`ofa-search` with intervals: in the document, in the report, and `--confidence`; `--verify` with a device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ofa_profiler import Architecture, LatencyTable, get_space
from ofa_profiler.devices import Agent, FakeDevice
from ofa_profiler.tables.corrections import Regression
from ofa_profiler.tables.corrections.regression import FEATURES
from ofa_profiler.tables.row import Row
from ofa_search.cli.search import main

SPACE = get_space("cifar-mbv3")
PLAIN = {name: float(name == "ms") for name in FEATURES}
MACS = ("--predictor", "macs", "--no-export")


def save_table(path: Path, errors: int = 40) -> Path:
    """A table whose predictions had an error of 4% for so many networks."""
    rows = [
        Row.from_op(op, batch=1, precision="fp32", samples_ms=[op.macs / 1e6 + 0.05] * 3) for op in SPACE.unique_ops()
    ]
    metadata = {
        "spaces": ["cifar-mbv3"],
        "runtime": "onnxruntime",
        "precision": "fp32",
        "provider": None,
        "threads": 1,
        "batch": 1,
        "correction": Regression(PLAIN, 0.0, held_out_errors=(0.04,) * errors).to_json(),
    }
    LatencyTable(path.stem, tuple(rows), metadata, path).save(path)
    return path


def test_the_document_and_the_report_have_the_interval(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    board = str(save_table(tmp_path / "board.csv"))
    assert main(["--lut", board, "--budget", "8ms", *MACS, "--json"]) == 0
    (result,) = json.loads(capfd.readouterr().out)["results"]
    predicted = result["latency_ms"]["board"]
    assert result["latency_interval_ms"] == {
        "board": [pytest.approx(predicted / 1.04), pytest.approx(predicted / 0.96)]
    }
    assert main(["--lut", board, "--budget", "8ms", *MACS]) == 0
    assert "board: 8.00 ms, 95% of networks like this between 7.69 and 8.33" in capfd.readouterr().err


def test_confidence_keeps_the_budget_with_the_upper_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    board = str(save_table(tmp_path / "board.csv"))
    assert main(["--lut", board, "--budget", "8ms", "--confidence", "0.9", *MACS]) == 0
    words = capfd.readouterr().err
    assert "board: 7.68 ms, 90% of networks like this between 7.38 and 8.00" in words


@pytest.mark.parametrize(
    ("errors", "confidence", "words"),
    [(0, "0.95", "has no interval of 95%"), (40, "0.99", "has no interval of 99%"), (40, "95", "between 0 and 1")],
)
def test_a_confidence_that_the_table_does_not_have(
    errors: int, confidence: str, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    board = str(save_table(tmp_path / "board.csv", errors))
    assert main(["--lut", board, "--budget", "8ms", "--confidence", confidence, *MACS]) == 2
    assert words in capfd.readouterr().err


class Slower(FakeDevice):
    """Networks take `factor` times as long as the table predicts."""

    factor = 1.06

    def start(self, kit: Path | None, arguments: Any) -> Agent:
        ms = {}
        if kit is not None:
            table = LatencyTable.load(Path(self.model))
            for model in json.loads((kit / "manifest.json").read_text())["models"]:
                ms[model["key"]] = self.factor * self.predicted(table, kit / "models" / model["file"])
        object.__setattr__(self, "latency_ms", ms.__getitem__)
        return super().start(kit, arguments)

    @staticmethod
    def predicted(table: LatencyTable, file: Path) -> float:
        import onnx

        metadata = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        return float(table.predict_ms([Architecture.from_json(json.loads(metadata["architecture"]))])[0])


@pytest.mark.slow
def test_verify_finds_a_network_that_keeps_the_budget_on_a_slower_device(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    board = save_table(tmp_path / "board.csv")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("ofa_profiler.devices.open_device", lambda *_, **__: Slower(noise=0.002, model=str(board)))
    out = tmp_path / "out"
    code = main(["--lut", str(board), "--budget", "8ms", "--predictor", "macs", "--verify", "local",
                 "--out", str(out), "--json"])  # fmt: skip
    done = capfd.readouterr()
    assert code == 0, done.err
    document = json.loads(done.out)
    (result,) = document["results"]
    assert 7.6 <= result["measured_latency_ms"]["board"] <= 8.0
    assert result["latency_ms"]["board"] == pytest.approx(result["measured_latency_ms"]["board"] / 1.06, rel=0.005)
    assert json.loads((out / "search.json").read_text()) == document
    assert json.loads(Path(result["files"]["architecture"]).read_text()) == result["architecture"]
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
