"""The devices that can be measured, and how each is reached."""

from __future__ import annotations

from ofa_profiler.devices.base import Agent, Device
from ofa_profiler.devices.local import LocalDevice
from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.errors import UsageError

__all__ = ["Agent", "Device", "DeviceOptions", "LocalDevice", "open_device"]


def open_device(spec: str, options: DeviceOptions = DeviceOptions()) -> Device:  # noqa: B008 (frozen)
    """The device that `--device` names, to be used in a `with`. Raises `UsageError` for an unknown one.

    Nothing is reached before the device is used.
    """
    transport = spec.partition(":")[0]
    if options.benchmark_model is not None and transport != "adb":
        raise UsageError(f"--benchmark-model is for phones (adb:SERIAL), not for {spec!r:.100}")
    if spec == "local":
        return LocalDevice(options)
    if transport == "ssh":
        from ofa_profiler.devices.ssh.device import SshDevice

        return SshDevice(spec, options)
    if transport == "adb":
        from ofa_profiler.devices.android.device import AdbDevice

        return AdbDevice(spec, options)
    raise UsageError(f"unknown device {spec!r}; it is local (this machine), ssh:[user@]host[:port] or adb:SERIAL")
