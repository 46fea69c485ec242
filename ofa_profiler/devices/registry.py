"""The kinds of devices. The name of a device begins with the name of its kind: `ssh:pi@board` is of the kind `ssh`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ofa_profiler.base.plugins import load_plugins
from ofa_profiler.base.registry import Registry
from ofa_profiler.devices.android.benchmark_device import BenchmarkDevice
from ofa_profiler.devices.base import Device
from ofa_profiler.devices.local import LocalDevice
from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.errors import UsageError


@dataclass(frozen=True)
class DeviceKind:
    """A kind of device, which `register_device_kind` makes available to `--device`."""

    #: The name of the kind. It is the name of a device up to its first colon.
    name: str
    #: Creates the device of a name. It connects to nothing, and raises `UsageError` for a wrong name.
    open: Callable[[str, DeviceOptions], Device]
    #: How its devices are named, for help texts and errors: `ssh:[user@]host[:port]`.
    help: str


_KINDS: Registry[DeviceKind] = Registry("kind of device")


def register_device_kind(kind: DeviceKind) -> None:
    """Add a kind of device. Raises `UsageError` if its name is taken."""
    _KINDS.add(kind.name, kind)


def device_kinds() -> tuple[DeviceKind, ...]:
    """Return all kinds of devices."""
    return tuple(map(_KINDS.get, _KINDS.names()))


def device_names() -> str:
    """Return how devices are named, for messages and help texts."""
    return ", ".join(kind.help for kind in device_kinds())


def open_device(spec: str, options: DeviceOptions = DeviceOptions()) -> Device:  # noqa: B008 (frozen)
    """Return the device named `spec`, to be used in a `with`. Raises `UsageError` for an unknown name.

    The device is not contacted before it is used.
    """
    load_plugins()
    name = spec.partition(":")[0]
    if name not in _KINDS.names():
        raise UsageError(f"unknown device {spec!r:.100}; expected one of: {device_names()}")
    return _KINDS.get(name).open(spec, options)


def _open_local(spec: str, options: DeviceOptions) -> Device:
    _refuse_benchmark_model(spec, options)
    _refuse_folder(spec, options)
    if spec != LocalDevice.spec:
        raise UsageError(f"device {spec!r:.100}: the name of this machine is {LocalDevice.spec}, without an address")
    return LocalDevice(options)


def _open_ssh(spec: str, options: DeviceOptions) -> Device:
    from ofa_profiler.devices.ssh.device import SshDevice  # paramiko takes long to import

    _refuse_benchmark_model(spec, options)
    return SshDevice(spec, options)


def _open_adb(spec: str, options: DeviceOptions) -> Device:
    _refuse_folder(spec, options)
    if options.benchmark_model is not None:
        return BenchmarkDevice(spec, options.benchmark_model, options)
    from ofa_profiler.devices.android.device import AdbDevice  # adb-shell takes long to import

    return AdbDevice(spec, options)


def _refuse_benchmark_model(spec: str, options: DeviceOptions) -> None:
    if options.benchmark_model is not None:
        raise UsageError(f"device {spec!r:.100}: --benchmark-model is for phones (adb:SERIAL)")


def _refuse_folder(spec: str, options: DeviceOptions) -> None:
    if options.folder_on_board is not None:
        raise UsageError(f"device {spec!r:.100}: --folder-on-board is for boards (ssh:[user@]host)")


register_device_kind(DeviceKind("local", _open_local, "local (this machine)"))
register_device_kind(DeviceKind("ssh", _open_ssh, "ssh:[user@]host[:port]"))
register_device_kind(DeviceKind("adb", _open_adb, "adb:SERIAL"))
