"""Ops that are measured with the networks of a table: probes of the device, and doubtful rows a second time.

`about` of a journal of networks lists them (`checks`: `probes`, `again`). Peaks, second times and suspects of a table
follow from its rows and this journal. Journals of earlier versions have none, and leave a table as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ofa_profiler.errors import InputFileError
from ofa_profiler.export import Model, export_ops
from ofa_profiler.export.forms.base import candidates
from ofa_profiler.measuring.probes import peaks_of, probe_ops
from ofa_profiler.measuring.rows import row_of
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.forms import Forms
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.target import Target
from ofa_profiler.tables.roofline import Peaks, Work, row_work
from ofa_profiler.tables.row import OK, Row
from ofa_profiler.tables.stability import compute_stability
from ofa_profiler.tables.suspects import find_suspects, suspects_of
from ofa_profiler.tables.table import LatencyTable

#: The field of `about`.
CHECKS = "checks"
#: The ops with the most MACs/s and those with the most bytes/s are measured again in any case, so many of each: whether
#: they are faster than the device is known when its peaks are, which are measured at the same time.
_FASTEST = 3
#: At most so many slow ops are measured again, the slowest first.
_MOST_SLOW = 12


@dataclass(frozen=True)
class Checks:
    """The ops. Those of `again` are in the table."""

    probes: tuple[Op, ...] = ()
    again: tuple[Op, ...] = ()

    @property
    def all(self) -> tuple[Op, ...]:
        return (*self.probes, *self.again)

    def to_json(self) -> dict[str, Any]:
        return {name: [op.to_json() for op in getattr(self, name)] for name in ("probes", "again")}

    @staticmethod
    def of_journal(replay: Replay, source: Path) -> Checks:
        """Those of a journal of networks, the file `source`. Raises `InputFileError`."""
        data = replay.run.about.get(CHECKS)
        if data is None:
            return Checks()
        try:
            return Checks(*(tuple(map(Op.from_json, data[name])) for name in ("probes", "again")))
        except (KeyError, TypeError, ValueError) as error:
            raise InputFileError(source, f"does not list its {CHECKS} ({error})", row=1) from None


def draw_checks(table: LatencyTable, before: Checks | None = None) -> Checks:
    """The checks of a table: the probes, its doubtful rows, its fastest ones, and those that were checked `before`."""
    again = dict.fromkeys(op.key for op in before.again) if before is not None else {}
    slow = sorted(suspects_of(table.rows, table.metadata), key=lambda suspect: -suspect.factor)
    again |= dict.fromkeys(suspect.op for suspect in slow[:_MOST_SLOW])
    for speed in (Work.gmacs_per_s, Work.gbytes_per_s):
        again |= dict.fromkeys(_fastest(table.rows, speed))
    plain = {row.op: _without_form(row.description) for row in table.rows if row.status == OK}
    return Checks(probe_ops(), tuple(plain[key] for key in again if key in plain))


def _fastest(rows: Sequence[Row], speed: Callable[[Work, float], float]) -> list[str]:
    speeds = {
        row.op: speed(work, row.median_ms)
        for row in rows
        if row.status == OK and row.median_ms and (work := row_work(row)) is not None
    }
    return sorted(speeds, key=lambda key: -speeds[key])[:_FASTEST]


def _without_form(op: Op) -> Op:
    return replace(op, attributes={name: value for name, value in op.attributes.items() if name != "form"})


def export_checks(checks: Checks, folder: Path, target: Target, forms: Forms, release: str | None) -> list[Model]:
    """The models of the checks in `folder`, compressed, in the forms of a table, for a release of the runtime."""
    models = export_ops(
        checks.all, target, release=release, with_variants=bool(forms), with_encodings=True, cache_dir=folder
    )
    chosen = [forms.of(candidates(target, op.graph)) for op in checks.all]
    wanted = [model.variants[form] if form else model for model, form in zip(models, chosen, strict=True)]
    return [
        replace(model, variants={}, encodings={n: m.packed() for n, m in model.encodings.items()}).packed()
        for model in wanted
    ]


def checked(table: LatencyTable, replay: Replay, source: Path) -> LatencyTable:
    """The table with the peaks of its device, and with second times of rows whose first ones were doubtful.

    A doubtful row gets the second time if that is not doubtful. Otherwise it stays and is one of the `suspects`. A
    table that is checked already stays the same.
    """
    checks, found = Checks.of_journal(replay, source), replay.measurements()
    if not checks.all:
        return table
    target = replay.run.settings.target
    peaks = peaks_of(checks.probes, found, target)
    described = {row.op: row.description for row in table.rows}
    again = {
        op.key: row_of(described[op.key], found[op.key], target)
        for op in checks.again
        if op.key in described and op.key in found and found[op.key].ok
    }
    metadata = {**table.metadata, "peaks": peaks}
    rows = _replaced(table.rows, again, Peaks.from_metadata(metadata))
    again_ms = {op: row.median_ms for op, row in again.items() if row.median_ms is not None}
    suspects = find_suspects(rows, Peaks.from_metadata(metadata), again_ms)
    metadata.pop("suspects", None)
    if suspects:
        metadata["suspects"] = [suspect.to_json() for suspect in suspects]
    if rows != table.rows:
        stability = compute_stability(rows, metadata)
        metadata["stability"] = stability.to_json() if stability is not None else None
    return replace(table, rows=rows, metadata=metadata)


def restored(table: LatencyTable, replay: Replay, source: Path) -> LatencyTable:
    """A calibrated table, again with its second times, if it has lost them: then its CSV is written.

    They are lost if the rows were derived again from the journal of the ops, because the CSV had lost some.
    """
    found = checked(table, replay, source)
    if found.rows == table.rows or table.path is None:
        return table
    found.save(table.path)
    return LatencyTable.load(table.path)


def _replaced(rows: tuple[Row, ...], again: Mapping[str, Row], peaks: Peaks | None) -> tuple[Row, ...]:
    """The rows, with those of `again` in the place of suspicious ones, if they are not suspicious there.

    It is repeated, because a row counts as a neighbour of others.
    """
    while True:
        doubtful = {suspect.op for suspect in find_suspects(rows, peaks)} & again.keys()
        tried = _exchanged(rows, again, doubtful)
        repaired = doubtful - {suspect.op for suspect in find_suspects(tried, peaks)}
        if not repaired:
            return rows
        rows = _exchanged(rows, again, repaired)


def _exchanged(rows: tuple[Row, ...], again: Mapping[str, Row], ops: set[str]) -> tuple[Row, ...]:
    return tuple(again[row.op] if row.op in ops else row for row in rows)
