"""The journal: JSON lines, appended and synced one by one, from which everything else is derived.

The first line describes the request (`Run`); `replay.py` gives the lines their meaning. A last line that a kill or a
full disk cut off is dropped. Anything else that is wrong is an error with file and row.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from ofa_profiler.base.locks import try_lock
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.protocol.identity import request_difference
from ofa_profiler.protocol.lines import parse_line
from ofa_profiler.protocol.records import Kept, Record, Run, read_record
from ofa_profiler.protocol.replay import Replay


def read_journal(path: Path) -> tuple[Replay, bytes]:
    """A journal, and its whole lines as they are. Raises `InputFileError` with the row that is wrong."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputFileError(path, error.strerror or str(error)) from error
    data = data[: data.rfind(b"\n") + 1]
    replay: Replay | None = None
    for row, line in enumerate(data.splitlines(keepends=True), start=1):
        try:
            record = read_record(parse_line(line))
            if replay is not None:
                replay.add(record)
            elif isinstance(record, Run):
                replay = Replay(record)
            else:
                raise ValueError("the first line must be of type 'run'")
        except ValueError as error:  # noqa: PERF203 (the row is part of the message)
            raise InputFileError(path, f"not a line of a journal: {error}", row=row) from None
    if replay is None:
        raise InputFileError(path, "holds no results")
    return replay, data


class Journal:
    """A journal that is being written; with the path None it is in memory only.

    An existing file is continued if it answers the same request, and refused (`UsageError`) if not;
    `fresh` discards it.
    """

    def __init__(self, path: Path | None, run: Run, *, fresh: bool = False) -> None:
        self.path = path
        self.replay = Replay(run)
        self._file: BinaryIO | None = None
        self._lines: list[bytes] = []
        if path is not None:
            self._open(path, run, fresh)
        if not self._lines:
            self._write(run)

    def _open(self, path: Path, run: Run, fresh: bool) -> None:
        self._file = file = _open_locked(path)
        try:
            if not fresh and b"\n" in path.read_bytes():
                self.replay, data = read_journal(path)
                if difference := request_difference(self.replay.run, run):
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
        """Take a record in and sync it to the disk, if it is `Kept`. Raises `ValueError` for one that does not fit."""
        self.replay.add(record)
        if isinstance(record, Kept):
            self._write(record)

    def _write(self, record: Kept) -> None:
        line = json.dumps(record.to_json(), separators=(",", ":"), allow_nan=False).encode() + b"\n"
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
        # Nothing was measured, so nothing can be continued: the file is removed, before its lock is released. Later,
        # it could be the file of another run. Windows cannot remove an open file; there the other run keeps it open.
        is_void = error is not None and not self.replay.devices
        if is_void and sys.platform != "win32":
            self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # every line was synced, or its failure reported, when it was written
            self._file.close()
        if is_void and sys.platform == "win32":
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


def _open_locked(path: Path) -> BinaryIO:
    """The file at `path`, created if missing and locked: two runs must not write one journal."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        try:
            if not try_lock(file.fileno()):
                raise UsageError(f"{path} is being written by another ofa-profile; wait for it or use another --name")
            # Its last holder may have removed it since it was opened; what is written to that file is lost.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()
