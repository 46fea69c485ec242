"""The emulated arm64 board: another machine, another Python, no internet. Times mean nothing there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.boards import SimulatedBoard

from ofa_profiler.devices import DeviceOptions, open_device
from ofa_profiler.export import export_ops
from ofa_profiler.measuring.progress import MeasuringProgress
from ofa_profiler.measuring.session import measure
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces import get_space

pytestmark = pytest.mark.slow
SETTINGS = Settings(min_rounds=2, max_rounds=2, visit_s=0.01, min_visit_samples=3, op_timeout_s=300)


@pytest.fixture(scope="module")
def board(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedBoard]:
    with SimulatedBoard(shared_dir / "devices" / "sim", tmp_path_factory.mktemp("sim")) as board:
        yield board


@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("litert", marks=pytest.mark.long)])
def test_a_board_is_provisioned_measured_and_rebooted(board, tmp_path, monkeypatch, runtime):
    host_key = board.reached_from(tmp_path, monkeypatch)
    models = export_ops(get_space("cifar-mbv3").unique_ops()[:4], target=Target(runtime))
    journal = tmp_path / "j.jsonl"
    rebooted: list[int] = []

    def progress(state: MeasuringProgress) -> None:
        if state.visits == 3 and not rebooted:
            rebooted.append(state.visits)
            board.call("kill")
            threading.Timer(3, board.call, ["start"]).start()

    with open_device("ssh:board", DeviceOptions(accept_host_key=host_key)) as device:
        described = device.describe()
        measured = measure(
            device, models, replace(SETTINGS, target=Target(runtime)), journal=journal, progress=progress
        )
    assert described.machine == "aarch64"
    assert described.model.startswith("Raspberry Pi")
    assert all(m.ok and len(m.rounds_ms) == 2 for m in measured.values())
    assert rebooted
    log, _ = read_journal(journal)
    assert len(log.devices) == 2
    assert log.devices[0].runtime.name == runtime


def test_a_release_that_this_processor_cannot_run_is_followed_by_an_older_one(board, tmp_path, monkeypatch):
    """onnxruntime 1.21.0 uses an instruction that a Cortex-A72 (Raspberry Pi 4) lacks."""
    host_key = board.reached_from(tmp_path, monkeypatch)
    python = board.root / "usr" / "bin" / "python3"
    python.unlink()
    python.write_text('#!/bin/sh\nexport QEMU_CPU=cortex-a72\nexec /usr/bin/python3.11 "$@"\n')
    python.chmod(0o755)
    told: list[str] = []
    options = DeviceOptions(accept_host_key=host_key, like_release="1.21.0", tell=told.append)
    with open_device("ssh:board", options) as device:
        assert device.prepare_runtime("onnxruntime") == "1.20.1"
    assert any("onnxruntime 1.21.0 does not run there" in line and "SIGILL" in line for line in told)
