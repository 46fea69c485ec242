"""The cache folder of the user, and the names of its entries."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofa_profiler.errors import UsageError


def default_cache_dir() -> Path:
    """`$OFA_CACHE_DIR`, else `$XDG_CACHE_HOME/ofa-profiler`, else `ofa-profiler` in the system's folder for caches.

    Raises `UsageError` if the user has no home folder.
    """
    if own := os.environ.get("OFA_CACHE_DIR"):
        return Path(own).absolute()
    # The XDG specification requires to ignore relative paths.
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (xdg if xdg.is_absolute() else _system_cache_dir()) / "ofa-profiler"


def _system_cache_dir() -> Path:
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"])
    try:
        home = Path.home()
    except RuntimeError:
        raise UsageError("this user has no home folder for the cache; set XDG_CACHE_HOME") from None
    return home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"


def identity(parts: Mapping[str, Any]) -> str:
    """A short hash (32 hex digits) of plain JSON values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
