"""Several devices at the same time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.sshd import free_port

from ofa_profiler.base.parallel import run_all
from ofa_profiler.errors import DeviceError


def test_all_run_at_once_and_one_failing_does_not_stop_the_others():
    together = threading.Barrier(3, timeout=120)

    def good(check) -> int:
        return together.wait()

    def bad(check) -> int:
        together.wait()
        raise DeviceError("gone")

    outcomes = run_all({"a": good, "b": bad, "c": good})
    assert list(outcomes) == ["a", "b", "c"]
    assert isinstance(outcomes["b"], DeviceError)
    assert isinstance(outcomes["a"], int)


def test_a_defect_is_not_hidden():
    def broken(check) -> None:
        raise ZeroDivisionError

    for jobs in ({"a": broken}, {"a": broken, "b": lambda check: None}):
        with pytest.raises(ZeroDivisionError):
            run_all(jobs)


@pytest.fixture
def interruptible():
    """Ctrl-C is heard, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_stops_all():
    ended = []

    def long(check) -> None:
        try:
            while True:
                check()
                time.sleep(0.01)
        finally:
            ended.append(1)

    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        run_all({"a": long, "b": long})
    # They get a moment to end, and on a busy machine another one.
    deadline = time.monotonic() + 300
    while len(ended) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(ended) == 2


def profile(*words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "ofa_profiler.cli.profile",
        "--resolution",
        "24",
        "--no-calibration",
        "--time-limit",
        "1ms",
        *words,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_two_tables_by_one_command_and_a_device_that_is_not_there(ssh_server, me, tmp_path):
    here, there, nobody = "local", f"ssh:127.0.0.1:{ssh_server.port}", f"ssh:127.0.0.1:{free_port()}"
    words = [word for spec in (here, nobody, there) for word in ("--device", spec)]
    names = [word for name in ("here", "nobody", "there") for word in ("--name", name)]
    done = profile(*words, *names, "--out", str(tmp_path), "--runtime-on-board", "system", "--json")
    assert done.returncode == 4, done.stderr
    assert "Connection refused" in done.stderr
    devices = json.loads(done.stdout)["devices"]
    assert [Path(devices[spec]["table"]).name for spec in (here, there)] == ["here.csv", "there.csv"]
    assert devices[nobody]["exit_code"] == 4
    assert devices[here]["ok"] == devices[there]["ok"] > 50
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["here.csv", "there.csv"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--device", "local", "--device", "local"], "given twice"),
        (["--device", "local", "--device", "ssh:x", "--name", "a"], "1 --name for 2 tables"),
        (["--device", "local", "--device", "ssh:x", "--name", "a", "--name", "a"], "two equal names"),
        (["--device", "local", "--device", "ssh:"], "must be ssh:"),
    ],
)
def test_bad_usage(tmp_path, words, line):
    done = profile(*words, "--out", str(tmp_path))
    assert done.returncode == 2
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
