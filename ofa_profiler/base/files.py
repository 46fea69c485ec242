"""Writing files completely or not at all: a temporary file beside it, then a rename."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ofa_profiler.errors import UsageError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. Without an error it is then renamed to `path`, else it is removed.

    A failed write (full disk, no permission) leaves the old file unchanged and raises `UsageError`.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # mkstemp creates private files. A table or a model gets the permissions of the umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`, completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8 with `\\n` line ends, completely or not at all."""
    write_bytes(path, text.encode("utf-8"))


def keep_old(path: Path) -> None:
    """Rename `path`, if it exists, to the same name with `.old`, in place of an older one. Raises `UsageError`."""
    try:
        path.replace(path.with_name(f"{path.name}.old"))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(f"cannot rename {path}: {error.strerror or error}") from error


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content. Errors are ignored."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
