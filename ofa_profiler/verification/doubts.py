"""Warnings about the figures of a verification. Those about a table are in `tables/doubts.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from ofa_profiler.protocol.identity import EXECUTION, HARDWARE, DeviceIdentity, difference
from ofa_profiler.protocol.records import Device, State
from ofa_profiler.tables.doubts import Doubt
from ofa_profiler.tables.mixed import AnyTable
from ofa_profiler.verification.result import Verification

#: Changes of the device during a measurement that are reported.
_WARMER_C = 10.0
_CLOCK_CHANGE = 0.10
#: Noise that is reported even if the error is larger.
_NOISY = 0.05
#: The facts about a device that set its clock during a measurement.
_CLOCK = ("governor", "fixed_performance_mode")


# --- a table and a device ---------------------------------------------------------------------------------


def other_device(table: AnyTable, device: Device) -> str:
    """Return a warning if `device` differs from the device of `table`; empty if no difference is known."""
    found = difference(DeviceIdentity.from_table(table.metadata), DeviceIdentity.from_device(device), HARDWARE)
    return f"table {table.name} was measured on another device ({found})" if found else ""


def other_conditions(table: AnyTable, device: Device) -> str:
    """Return the first known difference between the conditions of `table` and of a measurement on `device`.

    A verification under other conditions says nothing about the table: another device or power mode, other cores,
    another runtime, another governor of the clock.
    """
    there, here = DeviceIdentity.from_table(table.metadata), DeviceIdentity.from_device(device)
    if found := difference(there, here):
        return f"it was measured under other conditions ({found})"
    described = table.metadata.get("device")
    for name in _CLOCK:
        was, now = described.get(name) if isinstance(described, Mapping) else None, device.json.get(name)
        if was is not None and now is not None and was != now:
            return f"it was measured under other conditions ({name} {was!r:.60}, now {now!r:.60})"
    return ""


def _other_execution(table: AnyTable, device: Device) -> Iterator[str]:
    """Yield a warning for other cores or another runtime on the same device. The numbers can still be compared."""
    there, here = DeviceIdentity.from_table(table.metadata), DeviceIdentity.from_device(device)
    for name in EXECUTION:
        if found := difference(there, here, [name]):
            yield f"table {table.name} was measured in another way ({found})"


# --- a verification ---------------------------------------------------------------------------------------


def verification_doubts(table: AnyTable, verification: Verification) -> tuple[Doubt, ...]:
    """Return the reasons why the figures of a verification of `table` may be wrong, notes first."""
    notes = (Doubt(note, is_note=True) for note in verification.device.uncontrolled)
    return (*notes, *map(Doubt, _verification_warnings(table, verification)))


def _verification_warnings(table: AnyTable, verification: Verification) -> Iterator[str]:
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
        yield "the time limit was reached before every median reached the requested precision"


def _changes(before: State, after: State) -> Iterator[str]:
    """Yield the changes of the device during the measurement. Values that could not be read are not compared."""
    cold, warm = before.temperature_c, after.temperature_c
    if cold is not None and warm is not None and abs(warm - cold) >= _WARMER_C:
        yield f"the temperature went from {cold:.0f} to {warm:.0f} degrees Celsius during the measurement"
    for core, was in before.mhz.items():
        now = after.mhz.get(core, math.nan)
        if abs(now - was) > _CLOCK_CHANGE * was:
            yield f"the clock of core {core} went from {was:.0f} to {now:.0f} MHz during the measurement"
