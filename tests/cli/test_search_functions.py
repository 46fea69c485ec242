"""`ofa-search --predictor package.module:function`: what it prints, and that an interruption loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.problems import CIFAR, work_ms

from ofa_profiler import LatencyTable
from ofa_profiler.tables.table import Row

#: The function writes a file for each evaluation, and once there are as many as STOP, it waits for its end.
MODULE = """
import os, time
from pathlib import Path
from ofa_profiler import get_space

def work(architecture):
    print("on stdout")
    number = len(list(Path("done").iterdir()))
    if number == int(os.environ.get("STOP", -1)):
        Path("waits").write_text(str(os.getpid()))
        time.sleep(60)
    Path("done", f"{number}-{os.getpid()}").touch()
    return get_space(architecture.space).macs(architecture) / 1e9

def broken(architecture):
    raise ValueError("no GPU")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "done").mkdir()
    ops = CIFAR.unique_ops()
    rows = [Row.from_op(op, batch=1, precision="fp32", samples_ms=[work_ms(op)] * 3) for op in ops]
    table = LatencyTable("made", tuple(rows), {"spaces": [CIFAR.name]})
    table.save(tmp_path / "made.csv")
    return tmp_path


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ofa_search.cli.search", "--lut", "made.csv", "--budget", "100ms", "--no-export"]
    return subprocess.Popen(
        [*command, "--json", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(process: subprocess.Popen[str], code: int = 0) -> tuple[Any, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return json.loads(out) if out else None, err


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def evaluations(folder: Path) -> int:
    return len(list((folder / "done").iterdir()))


OPTIONS = ("--predictor", "mine:work", "--evaluations", "20")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [pytest.param(9, marks=pytest.mark.slow, id="kill"), pytest.param(2, id="Ctrl-C")])
def test_an_interrupted_search_goes_on_and_finds_the_same(folder: Path, number: int) -> None:
    process = start(folder, *OPTIONS, STOP="8")
    until((folder / "waits").exists)
    until(lambda: bool((folder / "waits").read_text()))
    journal = folder / "out" / "search" / "evaluations.jsonl"
    until(lambda: journal.read_text().count("\n") == 8)
    if number == signal.SIGKILL:
        process.kill()
        process.communicate()
    else:
        os.killpg(process.pid, number)  # as a terminal does
        _, err = finished(process, 130)
        assert err.endswith("interrupted; the evaluations so far are kept; run the same command again to resume\n")
    worker = int((folder / "waits").read_text())
    until(lambda: not is_running(worker))
    lines = journal.read_text().splitlines()
    assert len(lines) == evaluations(folder) == 8

    resumed, err = finished(start(folder, *OPTIONS))
    assert "note: 8 evaluations in" in err
    assert "on stdout" in err
    assert evaluations(folder) == 20  # none is made twice
    assert journal.read_text().splitlines()[:8] == lines
    if number == signal.SIGINT:
        return
    journal.unlink()
    whole, _ = finished(start(folder, *OPTIONS, "--jobs", "2"))
    for document in (resumed, whole):
        document.pop("search_seconds")
    assert resumed == whole
    assert whole["evaluations"] == 20
    found = whole["results"][0]
    assert found["score"] == found["predicted_accuracy"] == found["macs"] / 1e9


def test_errors_are_one_line(folder: Path) -> None:
    _, err = finished(start(folder, "--predictor", "mine:broken", "--evaluations", "5"), 2)
    assert 'mine:broken, for {"space":"cifar-mbv3"' in err.splitlines()[-1]
    assert "ValueError: no GPU" in err.splitlines()[-1]
    _, err = finished(start(folder, "--predictor", "mine:missing"), 2)
    assert err.endswith("\nofa-search: mine:missing: AttributeError: module 'mine' has no attribute 'missing'\n")
    _, err = finished(start(folder, "--predictor", "macs", "--jobs", "2"), 2)
    assert err.endswith("\nofa-search: --jobs is for --predictor package.module:function\n")
