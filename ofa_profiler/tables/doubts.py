"""Reasons why the numbers of a latency table may be wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ofa_profiler.base.units import format_duration_ms
from ofa_profiler.protocol.values import number
from ofa_profiler.tables.consistency import is_of_model
from ofa_profiler.tables.row import FAILED, INFERRED, OK, Row
from ofa_profiler.tables.stability import stability
from ofa_profiler.tables.suspects import FAST, SLOW, Suspect, suspects_of


@dataclass(frozen=True)
class Doubt:
    """One reason, as one line. A note reports what could not be controlled. All others are warnings."""

    text: str
    is_note: bool = False
    #: What the user can do, where the table is made. Other commands leave it out.
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{'note' if self.is_note else 'warning'}: {self.text}{remedy}"


def table_doubts(
    name: str, rows: Sequence[Row], metadata: Mapping[str, Any], path: Path | None, *, notes: bool = True
) -> tuple[Doubt, ...]:
    """All doubts about the table `name` of the file `path`, notes first.

    Without `notes`, those that take a while are left out.
    """
    noise = noise_doubts(rows, metadata)
    found = sorted(
        [
            *metadata_doubts(metadata),
            *noise,
            *row_doubts(rows, metadata, notes=notes),
            *inference_doubts(rows, metadata),
        ],
        key=lambda doubt: not doubt.is_note,
    )
    named = [replace(doubt, text=f"table {name}: {doubt.text}") for doubt in found]
    if path is not None and path.suffix == ".csv" and not metadata:
        named.append(Doubt(f"{path}: {path.stem}.json is missing, so device and settings are unknown"))
    return tuple(named)


def row_doubts(rows: Sequence[Row], metadata: Mapping[str, Any], *, notes: bool = True) -> Iterator[Doubt]:
    """The doubts about rows. `metadata` may have the peaks of the device, and times of second measurements."""
    failed = [row for row in rows if row.status == FAILED]
    if failed:
        why = f": {failed[0].error}" if failed[0].error else ""
        yield Doubt(f"{_ops(failed)} failed and will not be used{why}")
    suspects = suspects_of(rows, metadata, slow=notes)
    if slow := [suspect for suspect in suspects if suspect.reason == SLOW]:
        # A note, because it can be true: some kernels of a runtime are slow.
        yield Doubt(_suspicion(slow, "over 5 times slower than similar ones"), is_note=True)
    if fast := [suspect for suspect in suspects if suspect.reason == FAST]:
        yield Doubt(_suspicion(fast, "faster than the device can be"), remedy="measure again with --fresh")
    copied = [] if is_of_model(metadata) else _copied(rows)  # equal blocks of a model share one measurement
    if copied:
        yield Doubt(f"the times of {_ops(copied)} are exactly equal to those of another row; the rows may be copied")


def _suspicion(suspects: Sequence[Suspect], what: str) -> str:
    worst = max(suspects, key=lambda suspect: suspect.factor)
    others = f" and {len(suspects) - 1} others are" if len(suspects) > 1 else " is"
    times = f"{format_duration_ms(worst.ms)} instead of about {format_duration_ms(worst.expected_ms)}"
    if worst.again_ms is not None:
        times += f", measured again: {format_duration_ms(worst.again_ms)}"
    return f"op {worst.op}{others} {what} ({times})"


def metadata_doubts(metadata: Mapping[str, Any]) -> Iterator[Doubt]:
    """The doubts that follow from the JSON beside the table."""
    device = metadata.get("device")
    notes = device.get("uncontrolled") if isinstance(device, dict) else None
    if isinstance(notes, list):
        yield from (Doubt(note, is_note=True) for note in notes if isinstance(note, str))


def inference_doubts(rows: Sequence[Row], metadata: Mapping[str, Any]) -> Iterator[Doubt]:
    """How many rows are inferred, from which table, and how far off they may be."""
    inferred = [row for row in rows if row.status == INFERRED]
    if not inferred:
        return
    like = metadata.get("like")
    told: Mapping[str, Any] = like if isinstance(like, Mapping) else {}
    base = f" from table {told['table']}" if isinstance(told.get("table"), str) else ""
    errors = [number(told.get(f"left_out_{name}")) for name in ("median", "p90")]
    far = f" (half of them off by {errors[0]:.1%} or more, a tenth by {errors[1]:.1%} or more)" if all(errors) else ""
    remedy = "ofa-profile without --like and with the same --name measures them"
    yield Doubt(f"{len(inferred)} of {len(rows)} ops are inferred{base}, not measured{far}", remedy=remedy)


def noise_doubts(rows: Sequence[Row], metadata: Mapping[str, Any]) -> Iterator[Doubt]:
    """The verdict on noise, unless nothing is noisy. It is a warning if the table as a whole is noisy."""
    found = stability(rows, metadata)
    if found is not None and (found.noisy or found.is_noisy):
        yield Doubt(str(found), is_note=not found.is_noisy, remedy=found.remedy)


def _ops(rows: Sequence[Row]) -> str:
    return f"{len(rows)} ops (for example {rows[0].op})" if len(rows) > 1 else f"op {rows[0].op}"


def _copied(rows: Sequence[Row]) -> list[Row]:
    """Rows with exactly the same times as another row. Two measurements never agree to the last bit."""

    def times(row: Row) -> tuple[float | int | None, ...]:
        return row.median_ms, row.mean_ms, row.std_ms, row.p10_ms, row.p90_ms, row.samples

    counts = Counter(times(row) for row in rows if row.status == OK and row.std_ms)
    return [row for row in rows if counts[times(row)] > 1]
