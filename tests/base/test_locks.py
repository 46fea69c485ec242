"""Locks between processes: one at a time, released with their holder."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest

from ofa_profiler.base.locks import locked, try_lock, try_locked

_HOLDER = """
import sys, time
from pathlib import Path
from ofa_profiler.base.locks import locked, try_lock
if sys.argv[1] == "file":
    with locked(Path(sys.argv[2])):
        print("held", flush=True)
        time.sleep(600)
with open(sys.argv[2], "ab") as file:
    assert try_lock(file.fileno())
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(path: Path, kind: str = "file") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", _HOLDER, kind, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_a_lock_is_free_again_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holder(path) as process:
        with try_locked(path) as free:
            assert not free
        kill(process)
        with try_locked(path) as free:
            assert free


def test_one_that_waits_is_told_once_and_gets_the_lock(tmp_path: Path) -> None:
    path, waiting, got = tmp_path / ".lock", threading.Event(), threading.Event()
    calls: list[None] = []

    def wait() -> None:
        with locked(path, lambda: (calls.append(None), waiting.set())[1]):
            got.set()

    with holder(path) as process:
        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(300)
        assert not got.is_set()
        kill(process)
        thread.join(300)
    assert got.is_set()
    assert len(calls) == 1
    with locked(path, lambda: pytest.fail("it is free")):
        pass


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    inside, most = [], 0

    def work() -> None:
        nonlocal most
        for _ in range(20):
            with locked(tmp_path / ".lock"):
                inside.append(None)
                most = max(most, len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert most == 1


def test_an_error_inside_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / ".lock"):
        raise ZeroDivisionError
    with try_locked(tmp_path / ".lock") as free:
        assert free


def test_a_file_system_without_locks_counts_as_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(filelock.FileLock, "_acquire", refuse)
    with try_locked(tmp_path / ".lock") as free:
        assert free
    with locked(tmp_path / ".lock", lambda: pytest.fail("nothing to wait for")):
        pass


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in tmp_path / "file" / ".lock", tmp_path:
        with pytest.raises(OSError, match=r".") as caught, locked(place):
            pass
        assert not isinstance(caught.value, TimeoutError)


def test_a_data_file_is_locked_itself(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"rows\n")
    with holder(path, "data") as process:
        with path.open("ab") as file:
            assert not try_lock(file.fileno())
        assert path.read_bytes() == b"rows\n", "others may read it meanwhile"
        assert [entry.name for entry in tmp_path.iterdir()] == ["rows.csv"], "nothing is left beside it"
        kill(process)
        with path.open("ab") as file:
            assert try_lock(file.fileno())
