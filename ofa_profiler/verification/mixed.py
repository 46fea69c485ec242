"""Calibration of mixed networks: some fit what a change of precision costs, others validate it.

The measurements are in `NAME-mixed-networks.jsonl` beside the int8 table NAME. Correction and validation are kept in
the JSON of both tables, under `mixed`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ofa_profiler.base.files import write_text
from ofa_profiler.base.progress import Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import DeviceError, InputFileError, UsageError
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.steady import steady_times
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.tables.corrections.mixed import mixed_features
from ofa_profiler.tables.csv_file import metadata_text, read_metadata
from ofa_profiler.tables.mixed import MIXED_FIELD, MixedTable
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.calibrate import (
    DEFAULT_FITTED,
    DEFAULT_VALIDATED,
    MAX_FITTED,
    MIN_FITTED,
    count_fitted,
    draw_networks,
    drawn_networks,
    read_networks,
)
from ofa_profiler.verification.conditions import covered_space, settings_of
from ofa_profiler.verification.doubts import other_conditions, other_device
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
    fitted: int | None = None,
    validated: int = DEFAULT_VALIDATED,
    sampling: Mapping[str, Any] | None = None,
    seed: int = 0,
    fresh: bool = False,
    time_limit_s: float | None = None,
    progress: Reporter | None = None,
) -> MixedCalibration:
    """Measure mixed networks on `device`, fit the correction of both tables to some, and validate it by the others.

    Both tables must be files; their JSON is rewritten at the end. An interrupted call with the same arguments is
    resumed; networks of other tables are measured again, and so are all for another number of `fitted` networks (None:
    as many as were measured already, or as usual). `sampling` are fields of their settings.

    Raises `UsageError` if that is impossible, or if the device is not that of the tables; `DeviceError` when the device
    or too many networks fail. The tables then stay as they are.
    """
    if table.path is None or table.fp32.path is None:
        raise UsageError(f"tables {table.name} are not files, so they cannot be calibrated")
    if fitted is not None and not MIN_FITTED <= fitted <= MAX_FITTED:
        raise UsageError(f"{fitted} networks: a calibration takes {MIN_FITTED} to {MAX_FITTED}")
    space = mixed_space(table)
    settings = replace(settings_of(table), **(sampling or {}), time_limit_s=time_limit_s)
    journal, session = mixed_journal(table.path), _session(table)
    before = table.before_fit()
    known = read_networks(journal, session)
    fresh = fresh or (known is not None and fitted is not None and fitted != count_fitted(known))
    known = None if fresh else known
    draw = (
        draw_networks(space, before.cost(space), fitted or DEFAULT_FITTED, validated, seed)
        if known is None
        else drawn_networks(known, journal)
    )
    was_complete = known is not None and known.is_finished(time_limit_s)
    if not was_complete:
        if other := other_device(table, device.describe()):
            raise UsageError(other)
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
    assert known is not None
    calibration = calibrated_mixed(before, known, journal)
    if was_complete and calibration.table.correction == table.correction:
        return replace(calibration, table=table)  # their JSON may have a later validation
    return _stored(calibration)


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
    if not replay.devices:
        raise InputFileError(source, "has no measurements")
    if other := other_conditions(table, replay.devices[0]):
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
    is_positive = fitted.cost(mixed_space(table)).minimum()[0] > 0
    if not is_positive:
        fitted = table  # whose errors are not those of the fit
    subnets = tuple(
        measured_subnet(fitted, a, float(ms), found.get(network_name(a)), times.get(network_name(a)))
        for a, ms in zip(draw.validated, fitted.predict_ms(draw.validated), strict=True)
    )
    verification = Verification(
        subnets, replay.devices[0], replay.end, replay.run.settings.seed, replay.devices[-1].time
    )
    # The coverage of the validation is that of intervals which its own networks did not widen.
    kept = fitted.correction
    if is_positive:
        kept = replace(kept, held_out_errors=(*errors, *errors_of_others))
    return MixedCalibration(fitted.with_correction(kept), verification, replay)


def restore_mixed(table: LatencyTable, source: Path) -> MixedTable | None:
    """Restore the correction of mixed networks for a table that was derived from its journal, the file `source`.

    It follows from a journal of mixed networks beside `source`, which is copied beside the int8 table. None without
    such a journal, or if the table of the other precision is not beside `table` (yet).
    """
    assert table.path is not None
    finished = {path: replay for path in sorted(source.parent.glob(f"*{_ENDING}")) if (replay := _finished(path))}
    for both in _pairs_beside(table) if finished else ():
        session = _session(both)
        for journal, replay in finished.items():
            if replay.run.about.get("session") == session:
                calibration = calibrated_mixed(both.before_fit(), replay, journal)
                assert both.path is not None
                target = mixed_journal(both.path)
                if not (target.exists() and target.samefile(journal)):
                    write_text(target, journal.read_text(encoding="utf-8"))
                return _stored(calibration).table
    return None


def _pairs_beside(table: LatencyTable) -> Iterator[MixedTable]:
    """`table` with each table in its folder that can be its partner."""
    assert table.path is not None
    for path in sorted(table.path.parent.glob("*.csv")):
        with contextlib.suppress(InputFileError, UsageError):
            yield MixedTable.of([table, LatencyTable.load(path)])


def _finished(journal: Path) -> Replay | None:
    replay = read_networks(journal)
    return replay if replay is not None and replay.end is not None else None


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
