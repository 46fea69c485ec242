"""Reads the measurement settings of a table, so that whole networks are measured with the same settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import SearchSpace, known_space
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.tables.consistency import check_of_space
from ofa_profiler.tables.mixed import AnyTable, MixedTable

#: The sampling of networks; all other settings are those of the table. Many short rounds, because the lower quartile of
#: the rounds counts (`protocol/steady.py`), and the even and the odd rounds are compared; twice as many on a busy
#: device. A drift slows whole rounds, which then do not count; there is no reference op.
_SAMPLING: dict[str, Any] = {
    "min_rounds": 12,
    "max_rounds": 24,
    "target_half_width": 0.01,
    "visit_s": 0.04,
    "reference_every_s": None,
}


def network_settings(settings: Settings) -> Settings:
    """Return the settings for networks of a table whose ops have `settings`."""
    return replace(settings, **_SAMPLING)


def settings_of(table: AnyTable) -> Settings:
    """Return the settings of the ops of `table`, for networks. Raises `InputFileError` if the table has none."""
    path = table.path or Path(table.name)
    check_of_space(path, table.metadata)
    if path.is_dir() or not table.metadata:
        what = "is a published table, which has no" if path.is_dir() else f"has no {path.stem}.json beside it with its"
        raise InputFileError(path, f"{what} measurement settings; verify a table made by ofa-profile")
    values = {name: table.metadata.get(name) for name in ("runtime", "precision", "provider", "threads", "batch")}
    if encoding := table.metadata.get("encoding"):
        values["encoding"] = encoding
    try:
        if 0 in values.values():
            raise UsageError("settings: threads and batch must be above zero")
        return network_settings(Settings.from_json({**Settings().to_json(), **values}))
    except UsageError as error:
        raise InputFileError(
            path.with_suffix(".json"), f"has no valid measurement settings ({error}); profile again"
        ) from None


def covered_space(table: AnyTable, space: SearchSpace | None) -> SearchSpace:
    """Return `space`, or the only space of the table, at the resolutions in the table. Raises `UsageError`.

    For tables of both precisions, it is that of their mixed networks.
    """
    if isinstance(table, MixedTable) and space is not None and not isinstance(space, MixedSpace):
        space = MixedSpace.of(space)
    if space is None:
        if len(table.spaces) != 1:
            held = ", ".join(table.spaces) or "none"
            raise UsageError(f"table {table.name} has the spaces {held}: select one with --space")
        only = known_space(table.spaces[0])
        space = MixedSpace.of(only) if isinstance(table, MixedTable) else only
    resolutions = table.complete_resolutions(space)
    if not resolutions:
        table.cost(space)  # raises an error that names what is missing
    return space.with_resolutions(resolutions)
