"""The journal of scores: a file with a JSON line for each architecture that a function has evaluated.

Lines are appended and synced one by one. A last line that a kill has cut off is dropped. One file can hold the scores
of several functions and search spaces.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ofa_profiler.base.files import keep_old
from ofa_profiler.base.locks import try_lock
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.architecture import Architecture

#: Every line begins so.
_START = b'{"objective":'
_FOREIGN = "not a line of a journal of scores; to begin a new one and keep this one as .old, give --fresh (fresh=True)"


def key_of(architecture: Architecture) -> str:
    """What identifies an architecture and its space in journals and caches."""
    return json.dumps(architecture.to_json(), sort_keys=True, separators=(",", ":"))


class ScoreJournal:
    """The scores by the function `name` in a file, which is created if it is missing and locked until `close`.

    `code` identifies the version of the function, if it is known. `fresh` renames an existing file to `NAME.old`.
    """

    def __init__(self, path: Path, name: str, *, code: str | None = None, fresh: bool = False) -> None:
        self.path, self.name, self._code = path, name, code
        #: By `key_of`.
        self.scores: dict[str, float] = {}
        #: How many of them another version of the function gave.
        self.of_other_code = 0
        self._file = _locked(path, fresh=fresh)
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        try:
            *lines, last = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise InputFileError(self.path, error.strerror or str(error)) from error
        codes: dict[str, Any] = {}
        for row, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                if entry["objective"] == self.name:
                    key = json.dumps(entry["architecture"], sort_keys=True, separators=(",", ":"))
                    self.scores[key], codes[key] = float(entry["score"]), entry.get("code")
            except (ValueError, KeyError, TypeError):  # noqa: PERF203 (the row is part of the message)
                raise InputFileError(self.path, _FOREIGN, row=row) from None
        if last[: len(_START)] != _START[: len(last)]:
            raise InputFileError(self.path, _FOREIGN, row=len(lines) + 1)
        if last:
            self._file.truncate(sum(len(line) + 1 for line in lines))  # an incomplete line
        self.of_other_code = sum(code != self._code for code in codes.values())

    def append(self, architecture: Mapping[str, Any], score: float, seconds: float) -> None:
        """Add the score of an architecture, given as JSON, and sync it to disk."""
        code = {} if self._code is None else {"code": self._code}
        entry = {"objective": self.name, **code, "score": score, "seconds": round(seconds, 6)}
        line = json.dumps({**entry, "architecture": architecture}, separators=(",", ":"), allow_nan=False)
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UsageError(f"cannot write {self.path}: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the file. Nothing can be appended afterwards."""
        self._file.close()


def _locked(path: Path, *, fresh: bool) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    if not try_lock(file.fileno()):
        file.close()
        raise UsageError(f"{path} is being written by another search; wait for it, or choose another folder")
    if not fresh or not path.stat().st_size:
        return file
    file.close()
    keep_old(path)
    return _locked(path, fresh=False)
