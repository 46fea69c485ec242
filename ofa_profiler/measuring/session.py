"""Measuring models on a device: what is asked for, and the loop that gets it into a journal.

The agent decides which model is visited next and when a median is known well enough; here its records
are kept, a device that went away is tried again, and a journal that was begun is continued.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_profiler.base.retry import retry
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import DeviceError, TransientError
from ofa_profiler.protocol.journal import Journal
from ofa_profiler.protocol.kit import ModelFile, run_record, write_kit
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.replay import Log, Record
from ofa_profiler.protocol.settings import Settings

__all__ = ["Measurement", "Progress", "Settings", "is_finished", "measure", "measure_into"]

_WAITING = "waiting for another measurement on this device"
_LONGEST_WHY = 300


@dataclass(frozen=True)
class Progress:
    """How far one is: models done, of `total`. `left_s` is an estimate, None before there is one."""

    done: int
    total: int
    failed: int = 0
    visits: int = 0
    left_s: float | None = None
    #: Why nothing happens just now, in words; empty while it does.
    waiting: str = ""


def measure(
    device: Device,
    models: Sequence[ModelFile],
    settings: Settings,
    *,
    journal: Path | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, Measurement]:
    """Measure `models` on `device` -> a measurement per key, in the order of `models`.

    Continues the file `journal` if it exists; without one, the samples are in the result only. `about`
    is kept in the journal's first line. A model that fails is a `Measurement` with status `failed`.
    Raises `DeviceError` when the device, the way to it or the agent fails, `UsageError` for a journal
    of another request and for what the device cannot do.
    """
    with Journal(journal, run_record(models, settings, about or {})) as open_journal:
        measure_into(open_journal, device, models, settings, progress)
        return open_journal.log.measurements()


def measure_into(
    journal: Journal,
    device: Device,
    models: Sequence[ModelFile],
    settings: Settings,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """`measure` into an open journal, which must be that of a request for these models and settings."""
    log = journal.log

    def before_retry(error: TransientError, _progress: bool) -> None:
        if progress is not None:
            progress(estimate(log, settings, waiting=f"{error}; trying again"))

    with tempfile.TemporaryDirectory(prefix="ofa-profiler-") as folder:
        while not is_finished(log, settings):
            retry(
                lambda: _measure_once(journal, device, models, settings, Path(folder), progress),
                device.waits_s,
                position=lambda _: log.n_visits,
                before_retry=before_retry,
            )


def is_finished(log: Log, settings: Settings) -> bool:
    """Whether there is nothing left to measure; a longer time limit continues what was cut short."""
    if log.end is None:
        return False
    old, new = log.end["time_limit_s"], settings.time_limit_s
    longer = old is not None and (new is None or new > old)
    return not (log.end["cut_short"] and longer)


def _measure_once(
    journal: Journal,
    device: Device,
    models: Sequence[ModelFile],
    settings: Settings,
    folder: Path,
    progress: Callable[[Progress], None] | None,
) -> None:
    run = {**journal.log.run, "settings": settings.to_json()}
    write_kit(folder, models, run, b"".join(journal.lines))
    with closing(device.measure_kit(folder, seen=len(journal.lines))) as records:
        for record in records:
            try:
                journal.append(record)
            except ValueError as error:
                raise DeviceError(f"device {device.spec}: wrong record from the agent: {error}") from None
            if progress is not None:
                progress(estimate(journal.log, settings, waiting=_waiting(record)))


def _waiting(record: Record) -> str:
    if record["type"] != "waiting":
        return ""
    why = record.get("why")
    return why[:_LONGEST_WHY] if isinstance(why, str) else _WAITING


def estimate(log: Log, settings: Settings, *, waiting: str = "") -> Progress:
    """How far the measurement in `log` is, and how long the rest will take."""
    done, failed, used_s, left = 0, 0, log.used_s, 0.0
    for visits in log.visits.values():
        visits_left = _visits_left(visits, settings)
        done += visits_left == 0
        failed += bool(visits) and visits[-1]["status"] != "ok"
        left += visits_left
    left_s = None
    if log.n_visits:
        left_s = left * used_s / log.n_visits
        if settings.time_limit_s is not None:
            first_round = sum(not visits for visits in log.visits.values()) * used_s / log.n_visits
            left_s = min(left_s, max(settings.time_limit_s - used_s, first_round))
    return Progress(done, len(log.visits), failed, log.n_visits, left_s, waiting)


def _visits_left(visits: Sequence[Mapping[str, Any]], settings: Settings) -> float:
    """How many more visits a model will need: an interval shrinks with the root of their number."""
    rounds = len(visits)
    if rounds and visits[-1]["status"] != "ok":
        return 0
    if rounds < settings.min_rounds:
        return settings.min_rounds - rounds
    width = visits[-1].get("half_width")
    if rounds >= settings.max_rounds or (width is not None and width <= settings.target_half_width):
        return 0
    needed = rounds * (width / settings.target_half_width) ** 2 if width is not None else settings.max_rounds
    return max(1.0, min(needed, settings.max_rounds) - rounds)
