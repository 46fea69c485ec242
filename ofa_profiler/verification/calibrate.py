"""Calibration: whole networks are measured, some to fit the correction of a table, the others to validate it.

The measurements are in `NAME-networks.jsonl` beside the table. Its first line lists the networks for fitting and for
validation, so correction and validation follow from the two journals and the table alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa_profiler.base.files import write_text
from ofa_profiler.base.progress import Progress, Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import DeviceError, InputFileError, UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.journal import OLD, read_journal
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.steady import steady_times
from ofa_profiler.spaces import SearchSpace, get_space
from ofa_profiler.spaces.costs import Cost
from ofa_profiler.spaces.sampling import draw_spread
from ofa_profiler.tables.corrections import OpMs, Regression, Sum, fit_regression
from ofa_profiler.tables.corrections.regression import network_features
from ofa_profiler.tables.csv_file import metadata_text, read_metadata, save_files
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.checks import Checks, checked, draw_checks
from ofa_profiler.verification.conditions import covered_space, settings_of
from ofa_profiler.verification.doubts import other_conditions, other_device
from ofa_profiler.verification.held_out import Group, errors_between_halves
from ofa_profiler.verification.networks import is_stale, measure_networks, measured_subnet, network_name
from ofa_profiler.verification.result import Verification

#: The number of networks for the fit, and for the validation.
DEFAULT_FITTED, DEFAULT_VALIDATED = 32, 20
#: With fewer networks the regression is not determined.
MIN_FITTED, MAX_FITTED = 10, 10_000
#: Keeps the draws of calibrations apart from those of verifications.
_STREAM = 13
_ENDING = "-networks.jsonl"
#: The fields of a table's JSON that follow from its networks and what is measured with them.
_FROM_NETWORKS = ("stability", "suspects", "correction", "validation", "peaks")


@dataclass(frozen=True)
class Calibration:
    """A calibrated table, its validation, and the journal of the networks."""

    table: LatencyTable
    verification: Verification
    replay: Replay
    #: Nothing had to be measured.
    was_complete: bool = False


@dataclass(frozen=True)
class Draw:
    """The networks of a calibration, in the order in which they are measured."""

    fitted: tuple[Architecture, ...]
    validated: tuple[Architecture, ...]

    @property
    def all(self) -> tuple[Architecture, ...]:
        return (*self.fitted, *self.validated)

    def to_json(self) -> dict[str, Any]:
        return {name: [a.to_json() for a in getattr(self, name)] for name in ("fitted", "validated")}

    @staticmethod
    def from_json(data: Any, source: Path) -> Draw:
        """Read the result of `to_json`. Raises `InputFileError` (of `source`)."""
        try:
            lists = (map(Architecture.from_json, data[name]) for name in ("fitted", "validated"))
            return Draw(*map(tuple, lists))
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise InputFileError(source, f"does not list its networks ({error})", row=1) from None


def networks_journal(table_path: Path) -> Path:
    """The journal of the networks of a table, beside its CSV or its own journal."""
    return table_path.with_name(f"{table_path.stem}{_ENDING}")


def read_networks(journal: Path, session: str | None = None) -> Replay | None:
    """Read a journal of networks; None if there is none, if it is damaged or, if given, of another `session`."""
    try:
        replay = read_journal(journal)[0]
    except InputFileError:
        return None
    return replay if session is None or replay.run.about.get("session") == session else None


def count_fitted(replay: Replay) -> int:
    """The number of networks for the fit in a journal of networks, including those that failed."""
    networks = replay.run.about.get("networks")
    fitted = networks.get("fitted") if isinstance(networks, Mapping) else None
    return len(fitted) if isinstance(fitted, list) else 0


def calibrate(
    table: LatencyTable,
    device: Device,
    *,
    fitted: int = DEFAULT_FITTED,
    validated: int = DEFAULT_VALIDATED,
    sampling: Mapping[str, Any] | None = None,
    seed: int = 0,
    space: SearchSpace | None = None,
    session: str | None = None,
    fresh: bool = False,
    time_limit_s: float | None = None,
    progress: Reporter | None = None,
) -> Calibration:
    """Measure networks on `device`, fit the correction of `table` to some, and validate it by the others.

    The table must be a file; its JSON is rewritten at the end. An interrupted call with the same arguments is resumed.
    `session` names the measurement of the ops: a journal of networks of another session is kept as `.old`, and one of
    this session is used even if it has other networks. With `fresh`, the networks are measured again. `sampling` are
    fields of their settings.

    Raises `UsageError` if that is impossible, or if the device is not that of the table; `DeviceError` when the device
    or too many networks fail. The table then stays as it is.
    """
    if not MIN_FITTED <= fitted <= MAX_FITTED:
        raise UsageError(f"{fitted} networks: a calibration takes {MIN_FITTED} to {MAX_FITTED}")
    if table.path is None:
        raise UsageError(f"table {table.name} is not a file, so it cannot be calibrated")
    if fresh and (other := other_device(table, device.describe())):
        raise UsageError(other)
    space = covered_space(table, space)
    settings = replace(settings_of(table), **(sampling or {}), time_limit_s=time_limit_s)
    journal = networks_journal(table.path)
    known = None if fresh else read_networks(journal, session)
    if known is None and not fresh and session is not None and journal.exists():
        journal.replace(journal.with_name(f"{journal.name}{OLD}"))
    # The plain sum of the ops decides, so that a resumed call draws the same.
    cost = plain_sum(table).cost(space)
    draw = draw_networks(space, cost, fitted, validated, seed) if known is None else drawn_networks(known, journal)
    was_complete = known is not None and known.is_finished(time_limit_s)
    if not was_complete:
        about = {"session": session, "networks": draw.to_json()}
        checks = _checks(table, journal, session, fresh=fresh)
        _, known = measure_networks(
            plain_sum(table),
            device,
            space,
            draw.all,
            settings,
            checks=checks,
            about=about,
            journal=journal,
            replaces=lambda run: journal.exists() and (fresh or is_stale(journal, run)),
            progress=None if progress is None else _labelled(progress),
        )
    assert known is not None
    return _stored(replace(calibrated(table, known, journal), was_complete=was_complete), table)


def _checks(table: LatencyTable, journal: Path, session: str | None, *, fresh: bool) -> Checks:
    """The ops that are measured with the networks. A resumed measurement has those with which it began."""
    known = read_networks(journal, session)
    before = None if known is None else Checks.of_journal(known, journal)
    if before is not None and not fresh:
        return before
    return draw_checks(table, before)


def _labelled(progress: Reporter) -> Reporter:
    def show(state: Progress) -> None:
        progress(replace(state, phase=f"{state.phase} networks"))

    return show


def draw_networks(space: SearchSpace, cost: Cost, fitted: int, validated: int, seed: int) -> Draw:
    """Draw networks over the range of `cost`."""
    count = fitted + validated
    drawn, _ = draw_spread(space, cost, count, np.random.default_rng([seed, _STREAM]))
    held = {int((i + 0.5) * count / validated) for i in range(validated)}
    return Draw(
        tuple(a for i, a in enumerate(drawn) if i not in held), tuple(a for i, a in enumerate(drawn) if i in held)
    )


def drawn_networks(replay: Replay, source: Path) -> Draw:
    """The networks of a journal of networks, the file `source`. Raises `InputFileError` if it does not list them."""
    return Draw.from_json(replay.run.about.get("networks"), source)


def calibrated(table: LatencyTable, replay: Replay, source: Path) -> Calibration:
    """Fit the correction of `table` to a journal of networks, the file `source`, and validate it.

    Raises `DeviceError` if too many networks failed, `UsageError` if the networks were measured under other conditions.
    """
    _check_session(table, replay, source)
    table = checked(table, replay, source)
    draw, every = drawn_networks(replay, source), replay.measurements()
    found = {name: every[name] for name in map(network_name, draw.all) if name in every}
    times = steady_times(found.values())
    seen, others = ([a for a in some if network_name(a) in times] for some in (draw.fitted, draw.validated))
    if len(seen) < MIN_FITTED:
        first = next((m.error for m in found.values() if not m.ok), "none")
        raise DeviceError(
            f"{len(seen)} of {len(draw.fitted)} networks were measured, too few for a calibration, so the table "
            f"adds up its ops; the first error: {first}"
        )

    def op_ms(resolution: int | None, op: Op) -> float:
        return table.latency_ms(op, resolution)

    names = [network_name(architecture) for architecture in seen]
    correction = fit_regression(seen, [times[name].ms for name in names], op_ms, names)
    errors, errors_of_others = errors_between_halves(_group(seen, op_ms), _group(others, op_ms), found)
    correction = replace(correction, held_out_errors=tuple(errors), errors_each=2)
    fitted = replace(table, metadata={**table.metadata, "correction": correction.to_json()})
    if not _is_positive(fitted, seen):
        fitted = plain_sum(table)
    predicted = fitted.predict_ms(draw.validated)
    subnets = tuple(
        measured_subnet(fitted, a, float(ms), found.get(network_name(a)), times.get(network_name(a)))
        for a, ms in zip(draw.validated, predicted, strict=True)
    )
    date = replay.devices[-1].time
    verification = Verification(subnets, replay.devices[0], replay.end, replay.run.settings.seed, date)
    validation = verification.validation() if verification.usable else None
    # The coverage of the validation is that of intervals which its own networks did not widen.
    kept = fitted.correction
    if isinstance(kept, Regression):
        kept = replace(kept, held_out_errors=(*errors, *errors_of_others))
    metadata: Mapping[str, Any] = {**fitted.metadata, "correction": kept.to_json(), "validation": validation}
    return Calibration(replace(table, metadata=metadata), verification, replay)


def _group(architectures: Sequence[Architecture], op_ms: OpMs) -> Group:
    return Group([network_name(a) for a in architectures], network_features(architectures, op_ms))


def _check_session(table: LatencyTable, replay: Replay, source: Path) -> None:
    """Raise an error if the networks of the file `source` do not belong to `table`."""
    if not replay.devices:
        raise InputFileError(source, "has no measurements")
    if other := other_conditions(table, replay.devices[0]):
        raise UsageError(f"the networks in {source} do not belong to table {table.name}: {other}")
    if replay.run.candidates is not None and replay.forms != table.forms:
        raise UsageError(f"the networks in {source} do not have the forms of table {table.name}")


def plain_sum(table: LatencyTable) -> LatencyTable:
    """The table without its correction."""
    return replace(table, metadata={**table.metadata, "correction": Sum().to_json()})


def _is_positive(table: LatencyTable, architectures: Sequence[Architecture]) -> bool:
    """Whether all networks take time. A fit to networks that have nothing to do with the ops can say otherwise."""
    space = get_space(architectures[0].space)
    return table.cost(space.with_resolutions(table.resolutions(space)) if space.resolutions else space).minimum()[0] > 0


def _stored(calibration: Calibration, before: LatencyTable) -> Calibration:
    """Write what the networks say into the files of the table, whole or not at all, and read them again.

    The CSV changes only if rows did, compared with the table `before`.
    """
    table = calibration.table
    assert table.path is not None
    path = table.path.with_suffix(".json")
    said = {name: table.metadata[name] for name in _FROM_NETWORKS if name in table.metadata}
    outdated = set(_FROM_NETWORKS) - said.keys()
    metadata = {name: value for name, value in {**read_metadata(path), **said}.items() if name not in outdated}
    if table.rows != before.rows:
        save_files(table.path, table.rows, metadata)
    else:
        write_text(path, metadata_text(metadata))
    return replace(calibration, table=LatencyTable.load(table.path))


def recalibrate(table: LatencyTable, device: Device, *, fitted: int, validated: int, **how: Any) -> Calibration:
    """Calibrate a table again, by networks that are measured now. `how` are further arguments of `calibrate`."""
    ops = read_networks(table.path.with_suffix(".jsonl")) if table.path is not None else None
    session = ops.run.created if ops is not None else None
    return calibrate(table, device, fitted=fitted, validated=validated, session=session, fresh=True, **how)


def restore_calibration(table: LatencyTable, session: str, source: Path) -> LatencyTable:
    """Calibrate a table that was derived from its journal, by the journal of networks beside the file `source`.

    Without such a journal of the same session, the table stays as it is. The journal is copied beside the table.
    """
    assert table.path is not None
    beside, target = networks_journal(source), networks_journal(table.path)
    replay = read_networks(beside, session)
    if replay is None or replay.end is None:
        return table
    calibration = calibrated(table, replay, beside)
    if not (target.exists() and target.samefile(beside)):
        write_text(target, beside.read_text(encoding="utf-8"))
    return _stored(calibration, table).table
