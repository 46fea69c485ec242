"""Memory of a training process on a CPU."""

from __future__ import annotations

import ctypes

#: Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_BLOCK_BYTES, _KEPT_BYTES = 1 << 30, (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, up to 2 GB, instead of giving it back at once.

    A training step allocates and frees the same large blocks again and again; left alone, glibc returns
    each to the system, and every next use starts with page faults, a tenth of the time of a step. It
    cannot be undone within the process. Returns whether the C library could be told (glibc only).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # Windows, macOS, musl
        return False
    settings = ((_M_MMAP_THRESHOLD, _BLOCK_BYTES), (_M_TRIM_THRESHOLD, _KEPT_BYTES))
    return all(bool(mallopt(ctypes.c_int(name), ctypes.c_int(value))) for name, value in settings)
