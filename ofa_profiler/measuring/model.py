"""From a device and a user's model to a table of its blocks.

file -> the network and its distinct blocks -> measured on the device into the journal -> CSV and JSON
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ofa_profiler.base.progress import Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.measuring.expectation import milliseconds
from ofa_profiler.measuring.model_request import ModelRequest, model_request, runs_on_this_cpu
from ofa_profiler.measuring.model_table import WHOLE, check_runs
from ofa_profiler.measuring.model_what_if import add_what_if
from ofa_profiler.measuring.naming import subject_of, table_name
from ofa_profiler.measuring.profile import Profile, check_same_device
from ofa_profiler.measuring.progress import MeasuringProgress
from ofa_profiler.measuring.session import MeasuringReporter, measure_into
from ofa_profiler.measuring.table_from_journal import derive_table, table_rows
from ofa_profiler.models.base import Array, UserModel
from ofa_profiler.protocol.journal import Journal
from ofa_profiler.protocol.kit import KitWheels, check_new, write_kit
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings

#: Of one visit. Short models have hundreds anyway.
_FEWEST_SAMPLES = 3


def settings_for(model: UserModel, settings: Settings) -> Settings:
    """The settings with the runtime and the precision of the model.

    A whole network can take seconds, on a board minutes: three runs per visit are enough, in at least three rounds.
    """
    target = replace(settings.target, runtime=model.runtime, precision=model.precision)
    return replace(settings, target=target, min_visit_samples=min(settings.min_visit_samples, _FEWEST_SAMPLES))


def profile_model(
    device: Device,
    model: UserModel,
    feeds: Mapping[str, Array],
    settings: Settings,
    out: Path,
    *,
    name: str | None = None,
    fresh: bool = False,
    what_if: bool = False,
    cache_dir: Path | None = None,
    progress: Reporter | None = None,
) -> Profile:
    """Measure the network of `model` and each of its blocks on `device`, and write `out/NAME.{csv,json,jsonl}`.

    With `what_if`, also measure what changes of the network would save. An interrupted call with the same arguments is
    resumed, as for a search space. `settings` are those of `settings_for`. Raises `DeviceError` when the device fails
    or does not run the model, `UsageError` for what is impossible or would mix two measurements.
    """
    begin = time.perf_counter()
    if what_if and settings.time_limit_s is not None:  # half of the time for the blocks, half for the changes
        settings = replace(settings, time_limit_s=settings.time_limit_s / 2)
    how: dict[str, Any] = {"fresh": fresh, "cache_dir": cache_dir, "progress": progress}
    done = _profile_blocks(device, model, feeds, settings, out, name=name, **how)
    if what_if:
        done = add_what_if(done, device, model, feeds, settings, **how)
    return replace(done, seconds=time.perf_counter() - begin)


def _profile_blocks(
    device: Device,
    model: UserModel,
    feeds: Mapping[str, Array],
    settings: Settings,
    out: Path,
    *,
    name: str | None,
    fresh: bool,
    cache_dir: Path | None,
    progress: Reporter | None,
) -> Profile:
    begin = time.perf_counter()
    device.prepare_runtime(settings.target.runtime)
    described = device.describe()
    export_begin = time.perf_counter()
    is_here = runs_on_this_cpu(device.spec, settings)
    asked = model_request(model, feeds, settings, this_machine=is_here, cache_dir=cache_dir)
    export_s = time.perf_counter() - export_begin
    path = out / f"{table_name(name, described, [subject_of(model.path.name)], settings)}.jsonl"
    with Journal(path, asked.run, fresh=fresh) as journal:
        replay = journal.replay
        check_same_device(replay, described, path)
        was_complete, before_s = replay.is_finished(settings.time_limit_s), replay.measuring_s
        measure_into(
            journal, device, asked.models, asked.run.settings, _stopping(replay, progress), _expected_ms(asked)
        )
        table_rows(replay, path)  # before an old table is replaced, it must be known that there is a new one
        journal.replace_old(keep=True)
        table = derive_table(replay, path)
        seconds = time.perf_counter() - begin
        return Profile(table, replay, seconds, export_s, replay.measuring_s - before_s, was_complete)


def model_kit(
    model: UserModel,
    feeds: Mapping[str, Array],
    settings: Settings,
    folder: Path,
    *,
    wheels: KitWheels | None = None,
    cache_dir: Path | None = None,
) -> ModelRequest:
    """Write a kit for a board that cannot be reached into the new or empty `folder`. Raises `UsageError`."""
    check_new(folder)
    asked = model_request(model, feeds, settings, this_machine=False, cache_dir=cache_dir)
    write_kit(folder, asked.models, asked.run, wheels=wheels)
    return asked


def _stopping(replay: Replay, progress: Reporter | None) -> MeasuringReporter:
    """A reporter that raises `DeviceError` once the network has failed: then its blocks are of no use."""

    def report(state: MeasuringProgress) -> None:
        check_runs(replay.measurement(WHOLE))
        if progress is not None:
            progress(state)

    return report


def _expected_ms(asked: ModelRequest) -> dict[str, float]:
    """The expected latency of each model, for the estimate of the time left."""
    found = ((op.key, op.attributes["macs"], op.attributes["bytes"]) for op in asked.run.ops or ())
    return {key: milliseconds(int(macs), int(n_bytes)) for key, macs, n_bytes in found}
