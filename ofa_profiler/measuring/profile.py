"""From a device and a search space to a latency table.

    space -> its distinct ops -> a model of each -> measured on the device into the journal -> CSV and JSON

A kit is the same without the device: someone carries it there, and `derive.import_results` ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ofa_profiler.devices.base import Device
from ofa_profiler.errors import UsageError
from ofa_profiler.export import Model, count_exported, export_ops
from ofa_profiler.measuring.naming import check_name, default_name
from ofa_profiler.measuring.session import Progress, is_finished, measure_into
from ofa_profiler.measuring.table_from_journal import derive_table
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.journal import Journal
from ofa_profiler.protocol.kit import KitWheels, run_record, write_kit
from ofa_profiler.protocol.replay import Log, Record
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.tables.table import LatencyTable

#: Is told about the phases `export` and `measure`.
Observer = Callable[[str, Progress], None]

#: What a visit costs beside its samples: warm-up as a fraction of them, loading in seconds. For plans only.
_WARM_UP, _LOAD_S = 0.15, 0.01


@dataclass(frozen=True)
class Profile:
    """A table that was made, and how that went. `seconds` is the whole call, `export_s` and `measuring_s` parts."""

    table: LatencyTable
    log: Log
    seconds: float
    export_s: float
    #: Time in which the device was running models, warm-up included, in this call.
    measuring_s: float
    #: Nothing had to be measured: the table was there already.
    was_complete: bool

    @property
    def path(self) -> Path:
        """The CSV of the table."""
        assert self.table.path is not None, "it was derived from a journal beside it"
        return self.table.path


@dataclass(frozen=True)
class Plan:
    """What would be measured. The seconds are for measuring alone, with the fewest rounds and with the most."""

    ops: tuple[Op, ...]
    models_to_export: int
    min_seconds: float
    max_seconds: float


def plan(space: SearchSpace, settings: Settings, *, cache_dir: Path | None = None) -> Plan:
    """What `profile` would do, without doing it."""
    ops = space.unique_ops()
    exported = count_exported(ops, settings.target, cache_dir=cache_dir)
    round_s = len(ops) * (settings.visit_s * (1 + _WARM_UP) + _LOAD_S)
    most_s = round_s * settings.max_rounds
    if settings.time_limit_s is not None:
        most_s = min(most_s, settings.time_limit_s)
    return Plan(ops, len(ops) - exported, min(round_s * settings.min_rounds, most_s), most_s)


def profile(
    device: Device,
    space: SearchSpace,
    settings: Settings,
    out: Path,
    *,
    name: str | None = None,
    fresh: bool = False,
    cache_dir: Path | None = None,
    progress: Observer | None = None,
) -> Profile:
    """Measure every op of `space` at its resolutions on `device` and write `out/NAME.{csv,json,jsonl}`.

    Goes on where an interrupted call with the same arguments was; a finished table is left as it is.
    Ops that fail become rows with the status `failed`. Raises `DeviceError` when the device fails or
    all ops do, `UsageError` for what cannot be done or would mix two measurements.
    """
    begin = time.perf_counter()
    models = _export(space, settings, cache_dir, progress)
    export_s = time.perf_counter() - begin
    run = _request(space, settings, models)
    name = check_name(name) if name is not None else default_name(device.describe(), run)
    path = out / f"{name}.jsonl"
    with Journal(path, run, fresh=fresh) as journal:
        log = journal.log
        was_complete, measured_before_s = is_finished(log, settings), log.measuring_s
        measure_into(journal, device, models, settings, None if progress is None else lambda p: progress("measure", p))
        table = derive_table(log, path)
        seconds = time.perf_counter() - begin
        return Profile(table, log, seconds, export_s, log.measuring_s - measured_before_s, was_complete)


def make_kit(
    space: SearchSpace,
    settings: Settings,
    folder: Path,
    *,
    wheels: KitWheels | None = None,
    cache_dir: Path | None = None,
    progress: Observer | None = None,
) -> int:
    """Write a kit for `space` into `folder`, which must be new or empty -> the number of its models."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and not an empty folder; give a new one for the kit")
    models = _export(space, settings, cache_dir, progress)
    write_kit(folder, models, _request(space, settings, models), wheels=wheels)
    return len(models)


def _export(space: SearchSpace, settings: Settings, cache_dir: Path | None, progress: Observer | None) -> list[Model]:
    def exported(done: int, total: int) -> None:
        if progress is not None:
            progress("export", Progress(done, total))

    return export_ops(
        space.unique_ops(),
        settings.target,
        cache_dir=cache_dir,
        progress=exported,
    )


def _request(space: SearchSpace, settings: Settings, models: list[Model]) -> Record:
    return run_record(models, settings, {"spaces": [space.name], "resolutions": list(space.resolutions)})
