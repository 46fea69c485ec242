"""What a device's folder says about the search that made it, so that an interrupted fleet goes on."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_profiler.base.files import write_text
from ofa_profiler.base.version import __version__

REQUEST = "request.json"
_SUMMARY = "search.json"
#: Arguments that have no effect on a device's files.
_OTHERS = {"lut", "budget", "fleet", "per_device", "out", "json"}
#: Larger files are known by size and time.
_HASHED = 1 << 24


@dataclass(frozen=True)
class Kept:
    """The folder of a device, for a request with this fingerprint."""

    folder: Path
    fingerprint: str

    def read(self) -> dict[str, Any] | None:
        """The document that is there, if the same request wrote it and its files are there."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            if json.loads((self.folder / REQUEST).read_text(encoding="utf-8"))["fingerprint"] != self.fingerprint:
                return None
            document: dict[str, Any] = json.loads((self.folder / _SUMMARY).read_text(encoding="utf-8"))
            if all(Path(path).is_file() for each in document["results"] for path in each["files"].values()):
                return document
        return None

    def write(self) -> None:
        """Say that the folder is complete."""
        write_text(self.folder / REQUEST, json.dumps({"fingerprint": self.fingerprint}) + "\n")


def fingerprint(arguments: argparse.Namespace, luts: Sequence[str], budgets: Sequence[str]) -> str:
    """What the files of a device depend on: options, and the content of tables, predictor and supernet."""
    options = {name: value for name, value in vars(arguments).items() if name not in _OTHERS}
    digest = hashlib.sha256(repr((__version__, sorted(options.items(), key=lambda each: each[0]), budgets)).encode())
    named = [*luts, *(str(options[name]) for name in ("predictor", "supernet") if options.get(name))]
    for path in map(Path, named):
        digest.update(b"\0".join(_contents(path)))
    return digest.hexdigest()


def _contents(path: Path) -> Iterator[bytes]:
    for file in [path, path.with_suffix(".json")] if path.is_file() else sorted(path.glob("*_lookup_table.*")):
        with suppress(OSError):
            status = file.stat()
            known = f"{status.st_size} {status.st_mtime_ns}".encode()
            yield file.name.encode() + (file.read_bytes() if status.st_size <= _HASHED else known)
