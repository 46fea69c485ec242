"""From the name of a phone to a connection: `adb:SERIAL`, `adb:HOST:PORT`, `adb:transport_id:N`.

If an adb server runs on this machine and has the phone, the connection goes through it, else directly to the phone.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence

from ofa_profiler.devices.adb.address import AdbServer, server_address
from ofa_profiler.devices.adb.bridge import Bridge
from ofa_profiler.devices.adb.server import (
    AdbServerBridge,
    AttachedPhone,
    find_server,
    server_phones,
    with_transport_ids,
)
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
_NO_SERIAL = "(no serial number)"
_TRANSPORT_ID = "transport_id:"
_NAMES = "adb:SERIAL, adb:HOST:PORT or adb:transport_id:N"
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
        raise UsageError(f"device {spec!r:.100}: not a serial number; expected {_NAMES}")
    if phone.startswith(_TRANSPORT_ID) and not re.fullmatch(r"[0-9]{1,19}", phone.removeprefix(_TRANSPORT_ID)):
        raise UsageError(f"device {spec!r:.100}: expected adb:transport_id:N, with the number of `adb devices -l`")
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
            phones = []
        ready = _find(spec, phone, server, phones, is_required=address is None)
        if ready is not None:
            return AdbServerBridge(spec, server, ready.serial, ready.transport_id)
    elif address is None and (phone.startswith(_TRANSPORT_ID) or server_address().is_named):
        raise TransientDeviceError(f"{spec}: {_no_server()}")
    from ofa_profiler.devices.adb.direct import connect_tcp, connect_usb

    if address is not None:
        return connect_tcp(spec, *address, tell=tell)
    return connect_usb(spec, phone, tell=tell)


def _find(
    spec: str, phone: str, server: AdbServer, phones: Sequence[AttachedPhone], *, is_required: bool
) -> AttachedPhone | None:
    """Return the phone of the server that is meant and ready. Raises `DeviceError` if it must be there and is not."""
    number = phone.removeprefix(_TRANSPORT_ID) if phone.startswith(_TRANSPORT_ID) else ""
    if number or sum(found.serial == phone for found in phones) > 1:
        phones = with_transport_ids(server, phones)
    meant = [found for found in phones if (found.transport_id == number if number else found.serial == phone)]
    ready = [found for found in meant if found.state == _READY]
    if len(ready) > 1:
        raise DeviceError(
            f"{spec}: {len(ready)} phones have this serial number: {', '.join(map(_shown_by_id, ready))}; "
            + ("name one of these" if ready[0].transport_id else "unplug all but one, or use a newer adb")
        )
    if ready or not is_required:
        return next(iter(ready), None)
    if meant:  # a server owns all phones on USB
        raise TransientDeviceError(f"{spec}: {_state(meant[0])}")
    if number:
        raise TransientDeviceError(
            f"{spec}: no phone has this transport id now (it changes whenever a phone is plugged in); {list_phones()}"
        )
    raise TransientDeviceError(f"{spec}: {_NOT_ATTACHED}")


def _no_server() -> str:
    address = server_address()
    source = f" ({address.source})" if address.source else ""
    return f"no adb server listens on {address}{source}; start it there (`adb start-server`)"


def _address(spec: str, phone: str) -> tuple[str, int] | None:
    """Return host and port of a phone on the network; None for a serial number. Raises `UsageError`."""
    emulator = re.fullmatch(r"emulator-(\d{1,5})", phone, re.ASCII)  # the port of its console; adb has the next
    if emulator and int(emulator[1]) < 65535:
        return "127.0.0.1", int(emulator[1]) + 1
    host, colon, port = phone.rpartition(":")
    if not colon or phone.startswith(_TRANSPORT_ID):
        return None
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UsageError(f"device {spec!r:.100}: expected adb:HOST:PORT, like adb:192.168.1.20:5555")
    return host.removeprefix("[").removesuffix("]"), int(port)


def attached_phones() -> list[AttachedPhone]:
    """Return the phones of the adb server, or else on USB. Raises `DeviceError`."""
    server = find_server()
    if server is not None:
        phones = server_phones(server)
        serials = Counter(phone.serial for phone in phones)
        is_clear = all(serials[phone.serial] == 1 and phone.serial != _NO_SERIAL for phone in phones)
        return phones if is_clear else with_transport_ids(server, phones)
    from ofa_profiler.devices.adb.direct import usb_phones

    return [AttachedPhone(serial or "?", _READY if serial else "no permissions") for serial, _ in usb_phones()]


def list_phones() -> str:
    """Return one line with the attached phones and how to name one."""
    try:
        phones = attached_phones()
    except DeviceError as error:
        return f"give {_NAMES}; the attached phones cannot be listed: {error}"
    serials = Counter(phone.serial for phone in phones)
    listed = [
        (_shown_by_id(phone) if serials[phone.serial] > 1 or phone.serial == _NO_SERIAL else _shown(phone))
        + ("" if phone.state == _READY else f" ({_state(phone)})")
        for phone in sorted(phones, key=lambda phone: (phone.serial, int(phone.transport_id or 0)))
    ]
    if listed:
        return f"attached are {', '.join(listed)}"
    if server_address().is_named and find_server() is None:
        return _no_server()
    return f"none is attached; {_HOW_TO_ATTACH}, or give adb:HOST:PORT for a phone on the network"


def _shown(phone: AttachedPhone) -> str:
    """The name of a phone, in quotes if a shell needs them: a serial number can contain spaces, also at its ends."""
    serial = phone.serial if phone.serial.isprintable() else one_line(phone.serial)
    return shlex.quote(f"adb:{serial}") if " " in serial else f"adb:{serial}"


def _shown_by_id(phone: AttachedPhone) -> str:
    if not phone.transport_id:
        return _shown(phone)
    return f"adb:{_TRANSPORT_ID}{phone.transport_id} ({one_line(f'{phone.serial} {phone.details}')})"


def _state(phone: AttachedPhone) -> str:
    return _STATES.get(phone.state, f"the adb server reports the state {one_line(phone.state)}")
