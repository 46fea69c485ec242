"""Several devices that are measured for a comparison: the same release of the runtime on all of them, if possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from ofa_profiler.base.parallel import Check, run_all
from ofa_profiler.base.releases import numbers_of
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import OfaError
from ofa_profiler.protocol import records

#: The version of the runtime of a device, None if it is unknown, or the error of the device.
Versions = dict[str, str | OfaError | None]


def prepare_runtimes(devices: Mapping[str, Device], runtime: str, tell: Callable[[str], None]) -> Versions:
    """Make `runtime` ready on all devices, at the same time, and return its version on each.

    Where it is brought, it is the newest release that runs on all of them. `tell` receives a note if the devices that
    have their own runtime have another release.
    """
    versions = _prepare(devices, runtime, None)
    while len(found := _of(versions, [spec for spec in versions if devices[spec].chooses_release])) > 1:
        oldest = min(found, key=lambda version: numbers_of(version) or ())
        tell(f"note: {runtime} {oldest} is the newest release that runs on all boards, so all of them get it")
        behind = {spec: device for spec, device in devices.items() if versions[spec] in found - {oldest}}
        versions.update(_prepare(behind, runtime, oldest))
    if len(_of(versions, versions)) > 1:
        listed = ", ".join(f"{spec}: {version}" for spec, version in versions.items() if isinstance(version, str))
        tell(f"note: the devices have different releases of {runtime} ({listed}): their tables compare these, too")
    return versions


def describe_all(devices: Mapping[str, Device]) -> dict[str, records.Device | OfaError]:
    """Return what each device is, or its error."""

    def job(device: Device, _check: Check) -> records.Device:
        return device.describe()

    return run_all({spec: partial(job, device) for spec, device in devices.items()})


def _prepare(devices: Mapping[str, Device], runtime: str, at_most: str | None) -> Versions:
    def job(device: Device, _check: Check) -> str | None:
        return device.prepare_runtime(runtime, at_most)

    return dict(run_all({spec: partial(job, device) for spec, device in devices.items()}))


def _of(versions: Versions, specs: Mapping[str, object] | list[str]) -> set[str]:
    return {version for spec in specs if isinstance(version := versions[spec], str)}
