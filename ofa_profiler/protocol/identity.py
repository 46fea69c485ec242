"""Compares devices and requests. Each comparison returns the first difference as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ofa_profiler.protocol.records import Device, JsonObject, Run

#: The fields of `DeviceIdentity` that identify a device.
HARDWARE = ("model", "soc", "machine", "power_mode", "unit")
#: The fields that describe how a device runs models.
EXECUTION = ("cores_used", "runtime", "runtime_version", "provider")
#: What is compared first of models of users, in this order.
_MODEL = ("file", "sha256", "inputs")


@dataclass(frozen=True)
class DeviceIdentity:
    """The values that are equal for two measurements of the same device. None: unknown."""

    model: str | None
    soc: str | None
    machine: str | None
    power_mode: str | None
    #: Of one device among those of its model.
    unit: str | None
    #: Empty when the process could not be pinned to cores.
    cores_used: tuple[int, ...] | None
    runtime: str | None
    runtime_version: str | None
    provider: str | None

    @staticmethod
    def from_device(device: Device) -> DeviceIdentity:
        """Return the identity of a device from its own record."""
        runtime = device.runtime
        return DeviceIdentity(
            device.model,
            device.soc,
            device.machine,
            device.power_mode,
            device.unit,
            device.cores_used,
            runtime.name if runtime else None,
            runtime.version if runtime else None,
            runtime.provider if runtime else None,
        )

    @staticmethod
    def from_table(metadata: JsonObject) -> DeviceIdentity:
        """Return the identity of a table's device, from the JSON beside the table. Missing fields are unknown."""
        device = metadata.get("device")
        described: Mapping[str, Any] = device if isinstance(device, Mapping) else {}
        return DeviceIdentity(
            **{name: _text(described.get(name)) for name in HARDWARE},
            cores_used=_cores(described),
            **{name: _text(metadata.get(name)) for name in ("runtime", "runtime_version", "provider")},
        )

    def completed_by(self, other: DeviceIdentity) -> DeviceIdentity:
        """Return this identity, with unknown fields taken from `other`."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        return DeviceIdentity(**{name: getattr(other, name) if v is None else v for name, v in known.items()})


def _cores(device: JsonObject) -> tuple[int, ...] | None:
    cores = device.get("cores_used", "unknown")
    if cores is None:
        return ()
    return tuple(cores) if isinstance(cores, list) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def difference(one: DeviceIdentity, other: DeviceIdentity, among: Sequence[str] = HARDWARE + EXECUTION) -> str:
    """Return the first difference between two devices in the fields `among`; empty if there is none.

    A field that is unknown for one of them is no difference: older tables and journals have fewer fields.
    """
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in among}
    known = {name: pair for name, pair in pairs.items() if None not in pair}
    return _first_difference({k: v for k, (v, _) in known.items()}, {k: v for k, (_, v) in known.items()})


def request_difference(one: Run, other: Run) -> str:
    """Return the first difference between the requests of two runs; empty if there is none.

    The time limit is not compared: with a longer one, a measurement that was cut short is continued.
    """
    settings = [{k: v for k, v in run.settings.to_json().items() if k != "time_limit_s"} for run in (one, other)]
    about = [{k: v for k, v in run.about.items() if k != "tool_version"} for run in (one, other)]
    found = _first_difference(*settings) or _model_difference(*about) or _first_difference(*about)
    if found or one.models != other.models:
        return found or "other models"
    if one.profile != other.profile:
        return f"profile {one.profile!r:.60}, now {other.profile!r:.60}"
    # A journal without forms is continued without forms. Trials may be those of the ops that were measured first.
    if one.candidates is None or (other.candidates and one.candidates.variants == other.candidates.variants):
        return ""
    return "other forms"


def _model_difference(one: JsonObject, other: JsonObject) -> str:
    """The first difference between two models of users, in words; empty if there is none, or if one is a space."""
    before, now = one.get("model"), other.get("model")
    if not isinstance(before, dict) or not isinstance(now, dict) or before == now:
        return ""
    if found := _first_difference(*({name: each.get(name) for name in _MODEL} for each in (before, now))):
        return found
    hashes, others = (each.get("inputs_sha256") or {} for each in (before, now))
    differ = [name for name in others if hashes.get(name) != others[name]]
    return f"other values of the input {differ[0]!r:.60}" if differ else "other blocks"


def _first_difference(one: JsonObject, other: JsonObject) -> str:
    for name in {**one, **other}:
        if one.get(name) != other.get(name):
            return f"{name} {one.get(name)!r:.60}, now {other.get(name)!r:.60}"
    return ""
