"""`ofa-prune` for each runtime, on this machine and on a board."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("PIL")
pytest.importorskip("torch")
pytest.importorskip("ai_edge_litert")
from support.prunable import made_up_ms
from support.prune_runs import arguments, check_pruned, document
from support.sshd import Me, Sshd, spec_of

from ofa_profiler.devices import FakeDevice
from ofa_profiler.devices.base import Agent
from ofa_search.cli import prune as prune_cli
from ofa_search.pruning.latency.exporters import EXPORTERS


def test_the_runtimes_are_those_of_the_exporters() -> None:
    assert tuple(EXPORTERS) == prune_cli.RUNTIMES


@pytest.mark.slow
def test_for_litert_tflite_files_are_measured(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[Path] = []

    class Spy(FakeDevice):
        def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
            measured.extend([] if kit is None else kit.rglob("*.*"))
            return super().start(kit, arguments)

    monkeypatch.setattr("ofa_profiler.devices.open_device", lambda *_: Spy(latency_ms=made_up_ms))
    out = tmp_path / "out"
    assert prune_cli.main(arguments(out, "--runtime", "litert", "--threads", "2")) == 0, capsys.readouterr().err
    suffixes = {path.suffix for path in measured if "models" in path.parts}
    assert ".tflite" in suffixes
    assert ".onnx" not in suffixes
    settings = document(out)["latency"]["settings"]
    assert (settings["runtime"], settings["threads"]) == ("litert", 2)
    assert document(out)["after"]["measured_ms"] > 0
    assert json.loads((out / "trained-grid.json").read_text())["runtime"] == "litert"

    grid = ["--lut", str(out / "trained-grid.csv")]
    assert prune_cli.main(arguments(tmp_path / "other", *grid, "--runtime", "onnxruntime")) == 2
    assert "was measured with litert, not onnxruntime: a grid is for one runtime" in capsys.readouterr().err
    assert prune_cli.main(arguments(tmp_path / "by-table", *grid)) == 0
    assert document(tmp_path / "by-table")["latency"]["settings"]["runtime"] == "litert"
    assert (tmp_path / "by-table" / "trained.tflite").exists()


@pytest.mark.long
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_on_this_machine(there: Path, tmp_path: Path, runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured: to two thirds of the latency."""
    words = ["--json", "--runtime", runtime]
    assert prune_cli.main(arguments(tmp_path / "whole", *words)) == 0
    whole_ms = json.loads(capsys.readouterr().out)["before"]["measured_ms"]
    assert prune_cli.main(arguments(tmp_path / "out", *words, budget=f"{0.67e3 * whole_ms:.3f}us")) == 0
    found = json.loads(capsys.readouterr().out)
    check_pruned(found)
    assert found["latency"]["settings"]["runtime"] == runtime


@pytest.mark.slow
def test_on_a_board(there: Path, tmp_path: Path, ssh_server: Sshd, me: Me, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--device", spec_of(ssh_server), "--runtime-on-board", "system", "--runtime", "litert", "--threads", "2"]
    assert prune_cli.main(arguments(tmp_path / "out", *words)) == 0, capsys.readouterr().err
    found = document(tmp_path / "out")
    settings = found["latency"]["settings"]
    assert (settings["runtime"], settings["provider"], settings["threads"]) == ("litert", "XNNPACK", 2)
    assert found["after"]["measured_ms"] > 0
