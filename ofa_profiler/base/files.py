"""Writing files so that nothing is ever half-written: a temporary file beside it, then a rename.

And a lock, where several processes must not write the same file at the same time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ofa_profiler.errors import UsageError

_LOCK_POLL_S = 0.1
#: What network file systems without locks say to a request for one.
_NO_LOCKS_THERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on a clean exit it becomes `path`, else it is removed.

    A failed write (full disk, no permission) leaves the old file as it was and raises `UsageError`.
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
        # mkstemp makes files private; a table or a model is for everyone the umask allows.
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
    """Write `data` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8 with `\\n` line ends, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def remove(path: Path) -> None:
    """Take away what is there, a file or a folder with all that is in it, if it lets itself be taken away."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def try_lock(descriptor: int) -> bool:
    """Lock an open file, unless another process has. The system drops the lock with its holder.

    True also on a file system that has no locks, where the only other answer would be to do nothing at all.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 1 << 40, os.SEEK_SET)  # locked bytes cannot be read there: lock one far behind
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS_THERE
    return True


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path`; `waiting` is called once if another process holds it. Raises `OSError`."""
    with path.open("ab") as file:
        if not try_lock(file.fileno()):
            if waiting is not None:
                waiting()
            while not try_lock(file.fileno()):
                time.sleep(_LOCK_POLL_S)
        yield
