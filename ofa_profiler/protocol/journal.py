"""The journal: JSON lines, appended and synced as they come, from which everything else is derived.

The first line says what was asked for; what the lines mean is in `log.py`. A last line torn by a kill or
a full disk is dropped; anything else that is wrong is an error with file and row.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from ofa_profiler.base.files import try_lock
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.protocol.replay import Log, Record, first_difference, parse_record
from ofa_profiler.protocol.settings import Settings


def request_difference(one: Record, other: Record) -> str:
    """In what two `run` records ask for different things; empty if they do not.

    The time limit does not count: with a longer one, a run that was cut short goes on.
    """
    every = [Settings.from_json(run["settings"]).to_json() for run in (one, other)]
    settings = [{k: v for k, v in run.items() if k != "time_limit_s"} for run in every]
    if difference := first_difference(*settings):
        return difference
    about = [{k: v for k, v in run["about"].items() if k != "tool_version"} for run in (one, other)]
    if difference := first_difference(*about):
        return difference
    return "other models" if one["models"] != other["models"] else ""


def read_journal(path: Path) -> tuple[Log, bytes]:
    """A journal and its whole lines, as they are. Raises `InputFileError` with the row that is wrong."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputFileError(path, error.strerror or str(error)) from error
    data = data[: data.rfind(b"\n") + 1]
    log = Log()
    for row, line in enumerate(data.splitlines(keepends=True), start=1):
        try:
            log.add(parse_record(line))
        except ValueError as error:  # noqa: PERF203 (the row is part of the message)
            raise InputFileError(path, f"not a line of a journal: {error}", row=row) from None
    if not log.run:
        raise InputFileError(path, "holds no results")
    return log, data


class Journal:
    """A journal that is being written; with the path None it is kept in memory only.

    An existing file is continued if it answers the same request, and refused (`UsageError`) if not;
    `fresh` forgets it.
    """

    def __init__(self, path: Path | None, run: Record, *, fresh: bool = False) -> None:
        self.path = path
        self.log = Log()
        self._file: BinaryIO | None = None
        self._lines: list[bytes] = []
        if path is not None:
            self._open(path, run, fresh)
        if not self.log.run:
            self.append(run)

    def _open(self, path: Path, run: Record, fresh: bool) -> None:
        self._file = file = _open_locked(path)
        try:
            if not fresh and b"\n" in path.read_bytes():
                self.log, data = read_journal(path)
                if difference := request_difference(self.log.run, run):
                    raise UsageError(
                        f"{path} was measured with other settings ({difference}); use another --name, or --fresh"
                    )
                self._lines = data.splitlines(keepends=True)
            file.truncate(sum(map(len, self._lines)))  # without a torn last line
        except BaseException:
            file.close()
            raise

    @property
    def lines(self) -> list[bytes]:
        """Every line so far."""
        return self._lines

    def append(self, record: Record) -> None:
        """Check a record and keep it, down to the disk. Raises `ValueError` for a wrong one."""
        if not self.log.add(record):
            return
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        self._lines.append(line)
        if self._file is None:
            return
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UsageError(f"cannot write {self.path}: {error.strerror or error}") from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None or self.path is None:
            return
        # No measurement was begun, so there is none to continue. It goes before its lock does, or what goes is
        # that of a run which has just taken the lock; Windows cannot do this, and the other run keeps it open there.
        goes = error is not None and not self.log.devices
        if goes and sys.platform != "win32":
            self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # every line was synced, or its failure told, when it was written
            self._file.close()
        if goes and sys.platform == "win32":
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


def _open_locked(path: Path) -> BinaryIO:
    """The file at `path`, made if need be, and ours alone: two runs must not write one journal."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        try:
            if not try_lock(file.fileno()):
                raise UsageError(f"{path} is being written by another ofa-profile; wait for it or use another --name")
            # Its last holder may have removed it since we opened it; what is written there is lost.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()
