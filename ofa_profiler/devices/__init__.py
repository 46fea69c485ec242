"""The devices that can be measured, and how each is reached."""

from __future__ import annotations

from ofa_profiler.devices.base import Agent, Device
from ofa_profiler.devices.local import LocalDevice
from ofa_profiler.errors import UsageError

__all__ = ["Agent", "Device", "LocalDevice", "open_device"]


def open_device(spec: str) -> Device:
    """The device that `--device` names, to be used in a `with`. Raises `UsageError` for an unknown one."""
    if spec == "local":
        return LocalDevice()
    transport = spec.partition(":")[0]
    if transport in ("ssh", "adb"):
        raise UsageError(
            f"device {spec!r}: {transport} is not supported by this version; --kit writes what a board needs"
        )
    raise UsageError(f"unknown device {spec!r}; supported is local (this machine)")
