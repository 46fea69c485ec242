"""The conditions under which a table was measured, so that whole networks can be measured under the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import SearchSpace, get_space
from ofa_profiler.tables.table import LatencyTable

#: How networks are sampled; everything else is as for the ops of the table. The even and the odd rounds are compared,
#: so there are two of each at least.
_SAMPLING: dict[str, Any] = {"min_rounds": 4, "max_rounds": 8, "visit_s": 0.2}


def settings_of(table: LatencyTable) -> Settings:
    """The settings that run a network as the ops of `table` were run. Raises `InputFileError` if it tells none."""
    path = table.path or Path(table.name)
    if path.is_dir() or not table.metadata:
        what = "is a published table: it" if path.is_dir() else f"has no {path.stem}.json beside it, so it"
        raise InputFileError(path, f"{what} does not say how it was measured; verify a table made by ofa-profile")
    values = {name: table.metadata.get(name) for name in ("runtime", "precision", "provider", "threads", "batch")}
    try:
        if 0 in values.values():
            raise UsageError("settings: threads and batch must be above zero")
        return Settings.from_json({**Settings().to_json(), **_SAMPLING, **values})
    except UsageError as error:
        raise InputFileError(path.with_suffix(".json"), f"does not say how to measure: {error}") from None


def covered_space(table: LatencyTable, space: SearchSpace | None) -> SearchSpace:
    """`space`, or the only one of the table, at the resolutions that the table covers. Raises `UsageError`."""
    if space is None:
        if len(table.spaces) != 1:
            held = ", ".join(table.spaces) or "none"
            raise UsageError(f"table {table.name} holds the spaces {held}: name the one to verify with --space")
        space = get_space(table.spaces[0])
    resolutions = table.resolutions(space)
    if not resolutions:
        table.cost(space)  # raises an error that names what is missing
    return space.with_resolutions(resolutions)
