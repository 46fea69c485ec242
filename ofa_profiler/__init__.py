"""Turns a device into a latency table, and a table into milliseconds for any architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ofa_profiler.base.version import __version__
from ofa_profiler.networks.architecture import Architecture, Stage
from ofa_profiler.spaces import get_space, space_names
from ofa_profiler.tables.table import LatencyTable

if TYPE_CHECKING:
    from ofa_profiler.api import profile, verify

__all__ = [
    "Architecture",
    "LatencyTable",
    "Stage",
    "__version__",
    "get_space",
    "profile",
    "space_names",
    "verify",
]


def __getattr__(name: str) -> Any:
    """`profile` and `verify` on first use: reading a table or searching one needs no devices."""
    if name in ("profile", "verify"):
        from ofa_profiler import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
