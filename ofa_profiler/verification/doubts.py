"""May one trust the numbers of a table or of a verification? Every reason not to, in one place."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ofa_profiler.protocol.identity import EXECUTION, HARDWARE, DeviceIdentity, difference
from ofa_profiler.protocol.records import Device, JsonObject, State
from ofa_profiler.tables.row import FAILED, OK, Row
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.result import Verification

#: Samples of an op that spread by more than this fraction of their mean are unsteady.
_HIGH_RELATIVE_STD = 0.3
#: Changes of the device during a measurement that are reported.
_WARMER_C = 10.0
_CLOCK_CHANGE = 0.10
#: Noise that is reported even if the error is larger.
_NOISY = 0.05


@dataclass(frozen=True)
class Doubt:
    """One reason, on one line. A `note` tells what could not be controlled; other doubts are warnings."""

    text: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{'note' if self.is_note else 'warning'}: {self.text}"


# --- a table ----------------------------------------------------------------------------------------------


def table_doubts(table: LatencyTable) -> tuple[Doubt, ...]:
    """What makes the numbers of a table doubtful, notes first. None of it prevents the use of the table."""
    notes = (Doubt(f"table {table.name}: {text}", is_note=True) for text in _table_notes(table.metadata))
    return (*notes, *map(Doubt, _table_warnings(table)))


def _table_notes(metadata: JsonObject) -> Iterator[str]:
    device, sampling = (metadata.get(name) for name in ("device", "sampling"))
    notes = device.get("uncontrolled") if isinstance(device, dict) else None
    if isinstance(notes, list):
        yield from (note for note in notes if isinstance(note, str))
    cut_short, noisy = (sampling.get(n) if isinstance(sampling, dict) else None for n in ("cut_short", "noisy"))
    if cut_short:
        yield f"the time limit cut {cut_short} ops short; a longer --time-limit continues them"
    if noisy:
        yield f"{noisy} ops are noisier than requested after all rounds; close other programs"


def _table_warnings(table: LatencyTable) -> Iterator[str]:
    if table.path is not None and table.path.suffix == ".csv" and not table.metadata:
        yield f"{table.path}: there is no {table.path.stem}.json beside it, so device and settings are unknown"
    failed = [row for row in table.rows if row.status == FAILED]
    if failed:
        why = f": {failed[0].error}" if failed[0].error else ""
        yield f"table {table.name}: {_how_many(failed)} failed and will not be used{why}"
    unsteady = [row for row in table.rows if row.relative_std > _HIGH_RELATIVE_STD]
    if unsteady:
        yield (
            f"table {table.name}: the samples of {_how_many(unsteady)} spread by more than "
            f"{_HIGH_RELATIVE_STD:.0%} of their mean; measure again on a quiet device"
        )
    copied = _copied(table.rows)
    if copied:
        yield f"table {table.name}: the times of {_how_many(copied)} equal another row's bit for bit"


def _how_many(rows: Sequence[Row]) -> str:
    return f"{len(rows)} of its ops (for example {rows[0].op})" if len(rows) > 1 else f"its op {rows[0].op}"


def _copied(rows: Sequence[Row]) -> list[Row]:
    """Rows with exactly the times of another: two measurements never agree to the last bit."""

    def times(row: Row) -> tuple[float | int | None, ...]:
        return row.median_ms, row.mean_ms, row.std_ms, row.p10_ms, row.p90_ms, row.samples

    counts = Counter(times(row) for row in rows if row.status == OK and row.std_ms)
    return [row for row in rows if counts[times(row)] > 1]


# --- a table and a device ---------------------------------------------------------------------------------


def other_device(table: LatencyTable, device: Device) -> str:
    """In words, how `device` is another one than that of `table`; empty if it is the same, as far as is known."""
    found = difference(DeviceIdentity.from_table(table.metadata), DeviceIdentity.from_device(device), HARDWARE)
    return f"table {table.name} was measured on another device ({found})" if found else ""


def _other_execution(table: LatencyTable, device: Device) -> Iterator[str]:
    """Other cores or another runtime on the same device: the numbers can be compared, with care."""
    there, here = DeviceIdentity.from_table(table.metadata), DeviceIdentity.from_device(device)
    for name in EXECUTION:
        if found := difference(there, here, [name]):
            yield f"table {table.name} was measured in another way ({found})"


# --- a verification ---------------------------------------------------------------------------------------


def verification_doubts(table: LatencyTable, verification: Verification) -> tuple[Doubt, ...]:
    """Why the figures of a verification of `table` may be wrong, notes first."""
    notes = (Doubt(note, is_note=True) for note in verification.device.uncontrolled)
    return (*notes, *map(Doubt, _verification_warnings(table, verification)))


def _verification_warnings(table: LatencyTable, verification: Verification) -> Iterator[str]:
    device, end = verification.device, verification.end
    if other := other_device(table, device):
        yield other
    yield from _other_execution(table, device)
    if end is not None:
        yield from _changes(device.before, end.after)
    if verification.noise > min(verification.mape, _NOISY):
        yield (
            f"two measurements of the same networks differ by {verification.noise:.1%}, while the error is "
            f"{verification.mape:.1%}: the device is busy or unsteady; close other programs and verify again"
        )
    failed = [subnet for subnet in verification.subnets if subnet.error is not None]
    if failed:
        yield f"{len(failed)} of {len(verification.subnets)} networks failed; the first with: {failed[0].error}"
    if end is not None and end.cut_short:
        yield "the time limit was reached before every median was known well enough"


def _changes(before: State, after: State) -> Iterator[str]:
    """How the device changed during the measurement. What could not be read is not compared."""
    cold, warm = before.temperature_c, after.temperature_c
    if cold is not None and warm is not None and abs(warm - cold) >= _WARMER_C:
        yield f"the temperature went from {cold:.0f} to {warm:.0f} degrees Celsius during the measurement"
    for core, was in before.mhz.items():
        now = after.mhz.get(core, math.nan)
        if abs(now - was) > _CLOCK_CHANGE * was:
            yield f"the clock of core {core} went from {was:.0f} to {now:.0f} MHz during the measurement"
