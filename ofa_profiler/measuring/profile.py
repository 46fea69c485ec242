"""From a device and a search space to a latency table.

    space -> its distinct ops -> a model of each -> measured on the device into the journal -> CSV and JSON

`offline.py` does the same for a device that cannot be reached.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ofa_profiler.base.progress import Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import UsageError
from ofa_profiler.export import for_device
from ofa_profiler.measuring.expectation import expected_ms
from ofa_profiler.measuring.naming import table_name
from ofa_profiler.measuring.request import Part, request
from ofa_profiler.measuring.session import measure_into
from ofa_profiler.measuring.table_from_journal import check_usable, derive_table, table_rows
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol import records
from ofa_profiler.protocol.identity import HARDWARE, DeviceIdentity, difference
from ofa_profiler.protocol.journal import Journal
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.tables.table import LatencyTable


@dataclass(frozen=True)
class Profile:
    """A new table, and how it was made. `seconds` is the whole call; `export_s` and `measuring_s` are parts of it."""

    table: LatencyTable
    replay: Replay
    seconds: float
    export_s: float
    #: The time in which models ran on the device in this call, warm-up included.
    measuring_s: float
    #: The table was there already; nothing had to be measured.
    was_complete: bool
    #: Why the table was not calibrated, although that was requested.
    uncalibrated: str = ""
    #: Further results of the same call, for the JSON document.
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The CSV of the table."""
        assert self.table.path is not None, "it was derived from a journal beside it"
        return self.table.path


def profile(
    device: Device,
    space: SearchSpace,
    settings: Settings,
    out: Path,
    *,
    part: Part | None = None,
    more_ops: Sequence[Op] = (),
    name: str | None = None,
    fresh: bool = False,
    try_forms: bool = True,
    cache_dir: Path | None = None,
    progress: Reporter | None = None,
) -> Profile:
    """Measure every op of `space` at its resolutions on `device` and write `out/NAME.{csv,json,jsonl}`.

    An interrupted call with the same arguments is resumed; a finished table is left as it is. With `fresh` it is
    replaced when the new one is complete, and its journal becomes `NAME.jsonl.old`. An op that fails becomes a row
    with the status `failed`. `part`: only these ops are measured, and the others inferred. A later call with more
    ops, or without `part`, measures the rest. `more_ops`, `try_forms`: see `request`.

    Raises `DeviceError` when the device or every op fails, `UsageError` for what is impossible or would mix two
    measurements.
    """
    begin = time.perf_counter()
    release = device.prepare_runtime(settings.target.runtime)  # it may be too old for the usual models
    described = device.describe()
    settings = replace(settings, target=for_device(settings.target, described))
    export_begin = time.perf_counter()
    asked = request(
        space,
        settings,
        part=part,
        more_ops=more_ops,
        release=release,
        try_forms=try_forms,
        cache_dir=cache_dir,
        progress=progress,
    )
    export_s = time.perf_counter() - export_begin
    name = table_name(name, described, [space.name], settings)
    path = out / f"{name}.jsonl"
    with Journal(path, asked.run, fresh=fresh) as journal:
        replay = journal.replay
        check_same_device(replay, described, path)
        expected = expected_ms((*space.unique_ops(), *more_ops), settings)
        was_complete, measured_before_s = replay.is_finished(settings.time_limit_s), replay.measuring_s
        measure_into(journal, device, asked.models, settings, progress, expected)
        check_usable(table_rows(replay, path))
        journal.replace_old(keep=True)
        table = derive_table(replay, path)
        seconds = time.perf_counter() - begin
        return Profile(table, replay, seconds, export_s, replay.measuring_s - measured_before_s, was_complete)


def check_same_device(replay: Replay, described: records.Device, path: Path) -> None:
    """Refuse a table of another device: without a name, all devices of a model have the same one."""
    if replay.devices:
        before, now = DeviceIdentity.from_device(replay.devices[0]), DeviceIdentity.from_device(described)
        if found := difference(before, now, HARDWARE):
            raise UsageError(f"{path} was measured on another device ({found}); use another --name, or --fresh")
