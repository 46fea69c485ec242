"""Turns a device into a latency table, and a table into milliseconds for any architecture."""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, whose import takes longer than everything else here
if TYPE_CHECKING:
    from typing import Any

    from ofa_profiler.api import profile, profile_matrix, verify
    from ofa_profiler.base.version import __version__
    from ofa_profiler.networks.architecture import Architecture, Stage
    from ofa_profiler.spaces import get_space, space_names
    from ofa_profiler.tables.compare import compare
    from ofa_profiler.tables.mixed import MixedTable
    from ofa_profiler.tables.table import LatencyTable

#: Imported on first use. Commands start at once, and a search does not import the code of devices.
_HOMES = {
    "Architecture": "ofa_profiler.networks.architecture",
    "LatencyTable": "ofa_profiler.tables.table",
    "MixedTable": "ofa_profiler.tables.mixed",
    "Stage": "ofa_profiler.networks.architecture",
    "__version__": "ofa_profiler.base.version",
    "compare": "ofa_profiler.tables.compare",
    "get_space": "ofa_profiler.spaces",
    "profile": "ofa_profiler.api",
    "profile_matrix": "ofa_profiler.api",
    "space_names": "ofa_profiler.spaces",
    "verify": "ofa_profiler.api",
}

__all__ = [
    "Architecture",
    "LatencyTable",
    "MixedTable",
    "Stage",
    "__version__",
    "compare",
    "get_space",
    "profile",
    "profile_matrix",
    "space_names",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
