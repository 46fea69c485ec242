"""Calibration of mixed networks: some fit what a change of precision costs, others validate it.

The measurements are in `NAME-mixed-networks.jsonl` beside the int8 table NAME. Correction and validation are kept in
the JSON of both tables, under `mixed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ofa_profiler.base.files import write_text
from ofa_profiler.base.progress import Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.steady import steady_times
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.tables.corrections.mixed import MixedCorrection, mixed_features
from ofa_profiler.tables.csv_file import metadata_text, read_metadata
from ofa_profiler.tables.mixed import MIXED_FIELD, MixedTable
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.calibrate import (
    DEFAULT_FITTED,
    DEFAULT_VALIDATED,
    MIN_FITTED,
    draw_networks,
    drawn_networks,
    read_networks,
)
from ofa_profiler.verification.conditions import covered_space, settings_of
from ofa_profiler.verification.doubts import other_conditions
from ofa_profiler.verification.held_out import Group, errors_between_halves
from ofa_profiler.verification.networks import is_stale, measure_networks, measured_subnet, network_name
from ofa_profiler.verification.result import Verification

_ENDING = "-mixed-networks.jsonl"


@dataclass(frozen=True)
class MixedCalibration:
    """Calibrated tables, the validation of mixed networks, and their journal."""

    table: MixedTable
    verification: Verification
    replay: Replay


def mixed_journal(int8_table: Path) -> Path:
    """The journal of the mixed networks, beside the int8 table."""
    return int8_table.with_name(f"{int8_table.stem}{_ENDING}")


def mixed_space(table: MixedTable) -> MixedSpace:
    """The mixed networks of the only space of both tables, at their common resolutions. Raises `UsageError`."""
    space = covered_space(table, None)
    assert isinstance(space, MixedSpace), "the space of tables of both precisions"
    return space


def calibrate_mixed(
    table: MixedTable,
    device: Device,
    *,
    fitted: int = DEFAULT_FITTED,
    validated: int = DEFAULT_VALIDATED,
    sampling: Mapping[str, Any] | None = None,
    seed: int = 0,
    fresh: bool = False,
    time_limit_s: float | None = None,
    progress: Reporter | None = None,
) -> MixedCalibration:
    """Measure mixed networks on `device`, fit the correction of both tables to some, and validate it by the others.

    Both tables must be files; their JSON is rewritten at the end. An interrupted call with the same arguments is
    resumed; networks of other tables are measured again. `sampling` are fields of their settings.

    Raises `UsageError` if that is impossible; `DeviceError` when the device or too many networks fail. The tables then
    stay as they are.
    """
    if table.path is None or table.fp32.path is None:
        raise UsageError(f"tables {table.name} are not files, so they cannot be calibrated")
    space = mixed_space(table)
    settings = replace(settings_of(table), **(sampling or {}), time_limit_s=time_limit_s)
    journal, session = mixed_journal(table.path), _session(table)
    before = table.with_correction(MixedCorrection.before_fit(table.fp32.correction, table.int8.correction))
    known = None if fresh else read_networks(journal, session)
    draw = (
        draw_networks(space, before.cost(space), fitted, validated, seed)
        if known is None
        else drawn_networks(known, journal)
    )
    if known is None or not known.is_finished(time_limit_s):
        _, known = measure_networks(
            before,
            device,
            space,
            draw.all,
            settings,
            about={"session": session, "networks": draw.to_json()},
            journal=journal,
            replaces=lambda run: journal.exists() and (fresh or is_stale(journal, run)),
            progress=progress,
        )
    return _stored(calibrated_mixed(before, known, journal))


def _session(table: MixedTable) -> str:
    """What names the measurements of both tables: when they began."""
    begun = []
    for each in table.tables:
        ops = read_networks(each.path.with_suffix(".jsonl")) if each.path is not None else None
        begun.append(ops.run.created if ops is not None else str(each.metadata.get("date")))
    return "+".join(begun)


def calibrated_mixed(table: MixedTable, replay: Replay, source: Path) -> MixedCalibration:
    """Fit the correction of `table` to a journal of mixed networks, the file `source`, and validate it.

    Raises `DeviceError` if too many networks failed, `UsageError` if they were measured under other conditions.
    """
    if replay.devices and (other := other_conditions(table, replay.devices[0])):
        raise UsageError(f"the networks in {source} do not belong to the tables {table.name}: {other}")
    draw, every = drawn_networks(replay, source), replay.measurements()
    found = {name: every[name] for name in map(network_name, draw.all) if name in every}
    times = steady_times(found.values())
    seen, others = ([a for a in some if network_name(a) in times] for some in (draw.fitted, draw.validated))
    if len(seen) < MIN_FITTED:
        first = next((m.error for m in found.values() if not m.ok), "none")
        raise DeviceError(
            f"{len(seen)} of {len(draw.fitted)} mixed networks were measured, too few for a calibration; "
            f"the first error: {first}"
        )
    groups = [Group([network_name(a) for a in some], mixed_features(some, table.op_ms)) for some in (seen, others)]
    measured_ms = [times[name].ms for name in groups[0].names]
    correction = table.correction.fitted(groups[0].features, measured_ms, groups[0].names)
    errors, errors_of_others = errors_between_halves(groups[0], groups[1], found, plain=table.correction.weights)
    fitted = table.with_correction(replace(correction, held_out_errors=tuple(errors), errors_each=2))
    if fitted.cost(mixed_space(table)).minimum()[0] <= 0:
        fitted = table
    subnets = tuple(
        measured_subnet(fitted, a, float(ms), found.get(network_name(a)), times.get(network_name(a)))
        for a, ms in zip(draw.validated, fitted.predict_ms(draw.validated), strict=True)
    )
    verification = Verification(
        subnets, replay.devices[0], replay.end, replay.run.settings.seed, replay.devices[-1].time
    )
    # The coverage of the validation is that of intervals which its own networks did not widen.
    kept = replace(fitted.correction, held_out_errors=(*errors, *errors_of_others), errors_each=2)
    return MixedCalibration(fitted.with_correction(kept), verification, replay)


def _stored(calibration: MixedCalibration) -> MixedCalibration:
    verification = calibration.verification
    said = {
        "correction": calibration.table.correction.to_json(),
        "validation": verification.validation() if verification.usable else None,
    }
    return replace(calibration, table=store_mixed(calibration.table, said))


def store_mixed(table: MixedTable, said: Mapping[str, Any]) -> MixedTable:
    """Write fields of `mixed` into the JSON of both tables, and read them again."""
    tables = []
    for each, other in (table.tables, table.tables[::-1]):
        assert each.path is not None
        path = each.path.with_suffix(".json")
        metadata = read_metadata(path)
        known = metadata.get(MIXED_FIELD)
        entry = {**(known if isinstance(known, Mapping) else {}), "with": other.name, **said}
        write_text(path, metadata_text({**metadata, MIXED_FIELD: entry}))
        tables.append(LatencyTable.load(each.path))
    return MixedTable.of(tables)
