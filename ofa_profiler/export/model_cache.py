"""The cache folder for models of ops.

A file is named `IDENTITY-SHA256.SUFFIX`. IDENTITY is a hash of everything that determines the model: op, batch,
precision, exporter and its version. SHA256 is the hash of its bytes. If the bytes do not match, the model is exported
again. Files are written atomically, so several processes can share the folder.

There is one uncompressed model per op, batch and precision: 311 MB for `ofa-mbv3-w1.2` at five resolutions, 37 MB for
`cifar-mbv3`. Nothing is removed automatically. The user can delete files at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from ofa_profiler.base.files import remove, write_bytes
from ofa_profiler.errors import UsageError

_STALE_SECONDS = 24 * 3600


class ModelCache:
    """The models in one cache folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, list[Path]] = {}
        for path in _files(folder):
            if path.name.startswith("."):
                _remove_stale(path)
            else:
                self._known.setdefault(path.name.partition("-")[0], []).append(path)

    def has(self, name: str, suffix: str) -> bool:
        """Whether a file with the identity `name` exists. Its bytes are not checked."""
        return any(path.suffix == suffix for path in self._known.get(name, ()))

    def get(self, name: str, suffix: str, build: Callable[[], bytes]) -> tuple[Path, str]:
        """The file with the identity `name` and its SHA-256. If it is missing or damaged, `build` makes its bytes.

        Raises `UsageError` if it cannot be written (full disk, no permission).
        """
        for path in self._known.get(name, ()):
            sha256 = path.stem.partition("-")[2]
            if path.suffix == suffix and _has_hash(path, sha256):
                return path, sha256
        data = build()
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.folder / f"{name}-{sha256}{suffix}"
        if path.is_dir():
            remove(path)
        try:
            write_bytes(path, data)
        except UsageError:
            # Windows does not replace a file that another process is reading. That process has just written it.
            if not _has_hash(path, sha256):
                raise
        self._known[name] = [path]
        return path, sha256


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"cannot read the cache {folder}: {error.strerror or error}") from error


def _has_hash(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:
        return False


def _remove_stale(path: Path) -> None:
    """Remove an old temporary file of a killed process. A recent one may still be in use."""
    with contextlib.suppress(OSError):
        if path.suffix == ".tmp" and time.time() - path.stat().st_mtime > _STALE_SECONDS:
            path.unlink()
