"""SIGTERM and Ctrl-C of commands that hold a board: the agent there ends, and what it has measured is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.remotes import agents_of
from support.sshd import Me, Sshd, spec_of

from ofa_profiler import profile
from ofa_profiler.devices import FakeDevice
from ofa_profiler.protocol.journal import read_journal

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )


def interrupted(process: subprocess.Popen[str], server: Sshd, number: int, journal: Path | None) -> str:
    """Send the signal when the agent measures. Return what the command says."""
    deadline = time.monotonic() + 300
    while not agents_of(server) or (journal is not None and not has_visit(journal)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == CODES[signal.Signals(number)], err
    assert "Traceback" not in err
    deadline = time.monotonic() + 60
    while agents_of(server):
        assert time.monotonic() < deadline, "the agent still runs"
        time.sleep(0.05)
    return err


def has_visit(journal: Path) -> bool:
    return journal.exists() and b'"visit"' in journal.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_profiling(number: int, ssh_server: Sshd, me: Me, store: Path, tmp_path: Path) -> None:
    words = ["--device", spec_of(ssh_server), "--runtime-on-board", "system", "--resolution", "24", "--no-calibration"]
    process = start("ofa_profiler.cli.profile", *words, "--out", str(tmp_path / "out"), "--name", "t")
    err = interrupted(process, ssh_server, number, tmp_path / "out" / "t.jsonl")
    assert "run the same command again to resume" in err.splitlines()[-1]
    replay, _ = read_journal(tmp_path / "out" / "t.jsonl")
    assert replay.n_visits > 0


@pytest.mark.slow
def test_verifying_and_searching(ssh_server: Sshd, me: Me, store: Path, tmp_path: Path) -> None:
    path = profile(FakeDevice(), "cifar-mbv3", tmp_path, resolutions=[24], name="t").path
    about = path.with_suffix(".json")
    about.write_text(about.read_text().replace('"provider": "fake"', '"provider": null'))
    words = ["--lut", str(path), "--device", spec_of(ssh_server), "--runtime-on-board", "system"]
    process = start("ofa_profiler.cli.verify", *words)
    err = interrupted(process, ssh_server, signal.SIGTERM, tmp_path / "t-verify.jsonl")
    assert "run the same command again to resume" in err.splitlines()[-1]
    words = ["--lut", str(path), "--budget", "1s", "--verify", spec_of(ssh_server), "--runtime-on-board", "system"]
    process = start("ofa_search.cli.search", *words, "--out", str(tmp_path / "search"))
    err = interrupted(process, ssh_server, signal.SIGTERM, None)
    assert err.splitlines()[-1].startswith("ofa-search: interrupted")
    assert (tmp_path / "search" / "search.json").exists()
