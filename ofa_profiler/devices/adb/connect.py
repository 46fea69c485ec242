"""From the name of a phone to a connection: `adb:SERIAL`, `adb:HOST:PORT`.

If an adb server runs on this machine and has the phone, the connection goes through it, else directly to the phone.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ofa_profiler.devices.adb.bridge import Bridge
from ofa_profiler.devices.adb.server import AdbServerBridge, find_server, server_phones
from ofa_profiler.devices.remote.shell import one_line
from ofa_profiler.errors import DeviceError, TransientDeviceError, UsageError

#: States as the adb server names them.
_READY = "device"
_STATES = {
    "unauthorized": "not authorized yet: look at the phone and accept 'Allow USB debugging'",
    "offline": "does not answer the adb server: unplug it and plug it in again",
    "no permissions": "no permission to open it: install udev rules for Android phones and plug it in again",
    "no": "no permission to open it: install udev rules for Android phones and plug it in again",
}
_MAX_NAME = 300
_HOW_TO_ATTACH = "enable 'USB debugging' in the phone's developer options and plug it in"
_NOT_ATTACHED = f"no such phone is attached (--device adb: lists them); {_HOW_TO_ATTACH}"


def phone_of(spec: str) -> str:
    """Return the serial number or `HOST:PORT` of `adb:...`.

    Raises `UsageError` for a name that no phone can have, and for `adb:` alone, with a list of the attached phones.
    """
    phone = spec.partition(":")[2]
    if not phone:
        raise UsageError(f"no phone is named: {list_phones()}")
    if not phone.isprintable() or len(phone) > _MAX_NAME:
        raise UsageError(f"device {spec!r:.100}: not a serial number; expected adb:SERIAL or adb:HOST:PORT")
    _address(spec, phone)
    return phone


def open_bridge(spec: str, phone: str, tell: Callable[[str], None] | None) -> Bridge:
    """Connect to a phone. Raises `DeviceError`; transient, if the phone may be attached later."""
    address = _address(spec, phone)
    server = find_server()
    if server is not None:
        try:
            phones = server_phones(server)
        except TransientDeviceError as error:
            if address is None:  # the server may own the phone, although it does not answer
                raise TransientDeviceError(f"{spec}: {error}") from error
            phones = {}
        state = phones.get(phone)
        if state == _READY:
            return AdbServerBridge(spec, server, phone)
        if address is None:  # a server owns all phones on USB
            words = (
                _STATES.get(state, f"the adb server reports the state {one_line(state)}") if state else _NOT_ATTACHED
            )
            raise TransientDeviceError(f"{spec}: {words}")
    from ofa_profiler.devices.adb.direct import connect_tcp, connect_usb

    if address is not None:
        return connect_tcp(spec, *address, tell=tell)
    return connect_usb(spec, phone, tell=tell)


def _address(spec: str, phone: str) -> tuple[str, int] | None:
    """Return host and port of a phone on the network; None for a serial number. Raises `UsageError`."""
    emulator = re.fullmatch(r"emulator-(\d{1,5})", phone, re.ASCII)  # the port of its console; adb has the next
    if emulator and int(emulator[1]) < 65535:
        return "127.0.0.1", int(emulator[1]) + 1
    host, colon, port = phone.rpartition(":")
    if not colon:
        return None
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UsageError(f"device {spec!r:.100}: expected adb:HOST:PORT, like adb:192.168.1.20:5555")
    return host.removeprefix("[").removesuffix("]"), int(port)


def attached_phones() -> dict[str, str]:
    """Return serial number and state of the phones of the adb server, or else on USB. Raises `DeviceError`."""
    server = find_server()
    if server is not None:
        return server_phones(server)
    from ofa_profiler.devices.adb.direct import usb_phones

    return {serial or "?": _READY if serial else "no permissions" for serial, _ in usb_phones()}


def list_phones() -> str:
    """Return one line with the attached phones and how to name one."""
    try:
        phones = attached_phones()
    except DeviceError as error:
        return f"give adb:SERIAL or adb:HOST:PORT; the attached phones cannot be listed: {error}"
    listed = [
        f"adb:{one_line(serial)}" + ("" if state == _READY else f" ({_STATES.get(state, one_line(state))})")
        for serial, state in sorted(phones.items())
    ]
    if listed:
        return f"attached are {', '.join(listed)}"
    return f"none is attached; {_HOW_TO_ATTACH}, or give adb:HOST:PORT for a phone on the network"
