"""The journal: JSON lines, each appended and synced to disk. Everything else is derived from it.

The first line describes the request (`Run`); `replay.py` gives the lines their meaning. A last line is
dropped if a kill or a full disk cut it off. Any other invalid line is an error with file and row.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from ofa_profiler.base.files import write_bytes
from ofa_profiler.base.locks import try_lock
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.protocol.extension import extended, is_extension
from ofa_profiler.protocol.identity import request_difference
from ofa_profiler.protocol.lines import parse_line
from ofa_profiler.protocol.records import Kept, Record, Run, read_record
from ofa_profiler.protocol.replay import Replay

#: Added to the name of a journal: the unfinished one that will replace it, and the one that was replaced.
NEW, OLD = ".new", ".old"


def read_journal(path: Path) -> tuple[Replay, bytes]:
    """Return a journal and its complete lines, unchanged. Raises `InputFileError` with the row of an invalid line."""
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
        raise InputFileError(path, "contains no results; run the agent, then import the file again")
    return replay, data


class Journal:
    """A journal that is written. If the path is None, it is only in memory.

    An existing file is continued if it has the same request, or extended if it has a part of it (`extension.py`). Any
    other one is refused (`UsageError`).

    With `fresh`, an existing file stays as it is until `replace_old`, and the new lines go to `NAME.jsonl.new` beside
    it. If that file has the same request and is unfinished, it is continued. So an interruption loses nothing.
    """

    def __init__(self, path: Path | None, run: Run, *, fresh: bool = False) -> None:
        self.path = path
        self.replay = Replay(run)
        #: The file of the lines: `path`, or the new file beside it.
        self._written = path
        self._file: BinaryIO | None = None
        #: The file that this journal will replace, locked.
        self._old: BinaryIO | None = None
        self._lines: list[bytes] = []
        try:
            if path is not None:
                self._open(path, run, fresh)
            if not self._lines:
                self._write(run)
        except BaseException:
            self._close()
            raise

    def _open(self, path: Path, run: Run, fresh: bool) -> None:
        if fresh and path.exists():
            self._old = _open_locked(path)
            self._written = path.with_name(f"{path.name}{NEW}")
        assert self._written is not None
        self._file = _open_locked(self._written)
        found = self._continued(self._written, run) if b"\n" in self._written.read_bytes() else b""
        self._lines = found.splitlines(keepends=True)
        self._file.truncate(len(found))  # removes an incomplete last line
        if found and is_extension(self.replay.run, run):
            self._extend(self._written, run)

    def _extend(self, path: Path, run: Run) -> None:
        """Replace the first line, whole or not at all."""
        more = extended(self.replay.run, run)
        assert more is not None
        assert self._file is not None
        data = b"".join([_line(more), *self._lines[1:]])
        old, self._file = self._file, None
        if sys.platform == "win32":  # an open file cannot be replaced there
            old.close()
        try:
            write_bytes(path, data)
            self._file = _open_locked(path)
        finally:
            old.close()
        self.replay, data = read_journal(path)
        self._lines = data.splitlines(keepends=True)

    def _continued(self, path: Path, run: Run) -> bytes:
        """Read the file that is continued, and return its lines. Empty: the file is replaced."""
        try:
            replay, data = read_journal(path)
        except InputFileError:
            if self._old is None:
                raise
            return b""
        difference = "" if extended(replay.run, run) else request_difference(replay.run, run)
        if self._old is not None and (difference or replay.end is not None):
            return b""
        if difference:
            raise UsageError(f"{path} was measured with other settings ({difference}); use another --name, or --fresh")
        self.replay = replay
        return data

    def replace_old(self, *, keep: bool) -> None:
        """Put this journal in the place of the old one, if there is one. `keep` copies it to `NAME.jsonl.old` first.

        Nothing can be appended afterwards.
        """
        if self._old is None or self.path is None or self._written is None:
            return
        if keep:
            write_bytes(self.path.with_name(f"{self.path.name}{OLD}"), self.path.read_bytes())
        new, self._written = self._written, self.path
        if sys.platform == "win32":  # an open file cannot be replaced there
            self._close()
        try:
            new.replace(self.path)
        except OSError as error:
            raise UsageError(f"cannot replace {self.path}: {error.strerror or error}") from error
        self._close()

    @property
    def lines(self) -> list[bytes]:
        """All lines so far."""
        return self._lines

    def append(self, record: Record) -> None:
        """Add a record, and sync it to disk if it is `Kept`. Raises `ValueError` if it does not fit the journal."""
        self.replay.add(record)
        if isinstance(record, Kept):
            self._write(record)

    def _write(self, record: Kept) -> None:
        line = _line(record)
        self._lines.append(line)
        if self._file is None:
            return
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UsageError(f"cannot write {self._written}: {error.strerror or error}") from error

    def _close(self) -> None:
        for file in (self._file, self._old):
            if file is not None:
                with contextlib.suppress(OSError):  # each write was synced, or reported its failure
                    file.close()
        self._file = self._old = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None or self._written is None:
            return
        # Without a measurement there is nothing to continue, so the file is removed. This happens before its lock is
        # released, because afterwards another run may use it. Windows cannot remove an open file. There, it is removed
        # after the release, and removal fails if another run has opened it.
        is_void = error is not None and not self.replay.devices
        if is_void and sys.platform != "win32":
            self._written.unlink(missing_ok=True)
        self._close()
        if is_void and sys.platform == "win32":
            with contextlib.suppress(OSError):
                self._written.unlink(missing_ok=True)


def _line(record: Kept) -> bytes:
    return json.dumps(record.to_json(), separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _open_locked(path: Path) -> BinaryIO:
    """Open the file at `path`, create it if missing, and lock it: two runs must not write one journal."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        try:
            if not try_lock(file.fileno()):
                raise UsageError(f"{path} is being written by another ofa-profile; wait for it or use another --name")
            # The last owner may have removed the file after it was opened here. Lines in a removed file would be lost.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()
