"""Measuring models on a device: a loop that brings the records of an agent into a journal.

The agent decides which model is visited next and when a median is known well enough. Here its records are kept, a
journal is continued, and a device that was lost is tried again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ofa_profiler.base.retry import retry
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import DeviceError, TransientError
from ofa_profiler.measuring.progress import Estimator, MeasuringProgress
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.journal import Journal
from ofa_profiler.protocol.kit import ModelFile, run_record, write_kit
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.records import Record, Waiting
from ofa_profiler.protocol.settings import Settings

_WAITING = "waiting for another measurement on this device"
_LONGEST_WHY = 300

#: Receives the progress of a measurement. A `Reporter` is one.
MeasuringReporter = Callable[[MeasuringProgress], None]


def measure(
    device: Device,
    models: Sequence[ModelFile],
    settings: Settings,
    *,
    journal: Path | None = None,
    about: Mapping[str, Any] | None = None,
    ops: Iterable[Op] | None = None,
    progress: MeasuringReporter | None = None,
    expected_ms: Mapping[str, float] | None = None,
) -> dict[str, Measurement]:
    """Measure `models` on `device` -> a measurement per key, in the order of `models`.

    The file `journal` is continued if it exists. Without one, the samples are in the result only. `about` and `ops`,
    the ops of the models, are kept in the journal's first line. `expected_ms` improves the estimate of the time left.
    A model that fails is a `Measurement` with status
    `failed`. Raises `DeviceError` when the device, its transport or the agent fails, `UsageError` for a journal of
    another request and for what the device cannot do.
    """
    with Journal(journal, run_record(models, settings, about or {}, ops)) as open_journal:
        measure_into(open_journal, device, models, settings, progress, expected_ms)
        return open_journal.replay.measurements()


def measure_into(
    journal: Journal,
    device: Device,
    models: Sequence[ModelFile],
    settings: Settings,
    progress: MeasuringReporter | None = None,
    expected_ms: Mapping[str, float] | None = None,
) -> None:
    """`measure` into an open journal, which must be that of a request for these models and settings."""
    replay = journal.replay
    estimator = Estimator(settings, expected_ms)

    def show(waiting: str = "") -> None:
        if progress is not None:
            progress(estimator.progress(replay, waiting))

    def before_retry(error: TransientError, _progress: bool) -> None:
        show(f"{error}; trying again")

    with tempfile.TemporaryDirectory(prefix="ofa-profiler-") as folder:
        while not replay.is_finished(settings.time_limit_s):
            retry(
                lambda: _measure_once(journal, device, models, settings, Path(folder), show),
                device.waits_s,
                position=lambda _: replay.n_visits,
                before_retry=before_retry,
            )


def _measure_once(
    journal: Journal,
    device: Device,
    models: Sequence[ModelFile],
    settings: Settings,
    folder: Path,
    show: Callable[[str], None],
) -> None:
    write_kit(folder, models, journal.replay.run.with_settings(settings), b"".join(journal.lines))
    with closing(device.measure_kit(folder, seen=len(journal.lines))) as records:
        for record in records:
            try:
                journal.append(record)
            except ValueError as error:
                raise DeviceError(f"device {device.spec}: wrong record from the agent: {error}") from None
            show(_waiting(record))


def _waiting(record: Record) -> str:
    if not isinstance(record, Waiting):
        return ""
    return record.why[:_LONGEST_WHY] or _WAITING
