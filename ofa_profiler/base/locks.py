"""Locks between processes. The system releases a lock when its holder ends, also after `kill -9`.

`locked` and `try_locked` hold a lock file beside what they protect. `try_lock` locks a data file itself.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

#: The errors of network file systems without locks. There, every lock counts as free.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path`. If another process holds it, call `waiting` and wait. Raises `OSError`."""
    lock = _acquire(path, wait=False)
    if lock is None:
        if waiting is not None:
            waiting()
        lock = _acquire(path, wait=True)
        assert lock is not None
    with _released_at_end(lock):
        yield


@contextmanager
def try_locked(path: Path) -> Iterator[bool]:
    """Hold the lock file `path` and yield True, or yield False if another process holds it. Raises `OSError`."""
    lock = _acquire(path, wait=False)
    if lock is None:
        yield False
        return
    with _released_at_end(lock):
        yield True


def _acquire(path: Path, *, wait: bool) -> BaseFileLock | None:
    from filelock import FileLock, Timeout  # imported here, because most commands lock nothing

    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return lock


@contextmanager
def _released_at_end(lock: BaseFileLock) -> Iterator[None]:
    try:
        yield
    finally:
        lock.release()


def try_lock(descriptor: int) -> bool:
    """Lock an open data file until it is closed, and return True; False if another process has locked it.

    This is for files to which one process appends rows, and which others may read meanwhile: journals, samples. The
    lock is on the file itself, not on a `filelock` beside it. So no lock file stays in the user's folder, and the lock
    follows the file if it is renamed. (`filelock.lock_descriptor` locks the first byte. On Windows, no other
    process can read a locked byte.)
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 1 << 40, os.SEEK_SET)  # a byte far behind the end of the file
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True
