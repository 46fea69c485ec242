"""A direct connection to the adb daemon of a phone, over TCP or USB, without Google's adb."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adb_shell.exceptions import DeviceAuthError, InvalidCommandError, InvalidResponseError, TcpTimeoutException

from ofa_profiler.devices.adb.keys import load_signer
from ofa_profiler.devices.adb.link import AdbLink, WholeTcpTransport
from ofa_profiler.errors import DeviceError, OfaError, TransientDeviceError

if TYPE_CHECKING:
    from adb_shell.transport.base_transport import BaseTransport

Tell = Callable[[str], None]
#: How long the command waits for the owner of a phone to accept our key.
ACCEPT_TIMEOUT_S = 20.0
UNAUTHORIZED = (
    "the phone has not authorized this computer: look at its screen, accept 'Allow USB debugging' and run the command "
    "again"
)


def connect_tcp(name: str, host: str, port: int, *, key: Path | None = None, tell: Tell | None = None) -> AdbLink:
    """Connect to the daemon at `host:port`. Raises `DeviceError` with a remedy."""
    return _connect(name, WholeTcpTransport(host, port), key, tell)


def connect_usb(name: str, serial: str, *, key: Path | None = None, tell: Tell | None = None) -> AdbLink:
    """Connect to the phone on USB with this serial number. Raises `DeviceError`; transient, if it may come back."""
    found = [transport for number, transport in usb_phones() if number == serial]
    if len(found) > 1:
        raise DeviceError(
            f"{name}: {len(found)} phones on USB have this serial number; run `adb start-server`, and name one as "
            "adb:transport_id:N (`--device adb:` lists them)"
        )
    if found:
        return _connect(name, found[0], key, tell)
    raise TransientDeviceError(f"{name}: no such phone on USB; `--device adb:` lists what is attached")


def usb_phones() -> Iterator[tuple[str, BaseTransport]]:
    """Yield serial number and transport of every phone on USB with USB debugging enabled.

    Raises `TransientDeviceError`: a phone of an adb server comes back when the server does.
    """
    if importlib.util.find_spec("usb1") is None:
        raise TransientDeviceError(
            "phones on USB need the package libusb1 (pip install libusb1), or a running adb server"
        )
    try:
        from adb_shell.transport.usb_transport import UsbTransport
    except Exception as error:  # the package is installed, but its library is missing or finds no USB
        raise TransientDeviceError(
            f"phones on USB need libusb 1.0, which does not work here ({_words(error)})"
        ) from error
    try:
        yield from ((_serial(transport), transport) for transport in UsbTransport.find_all_adb_devices())
    except OfaError:
        raise
    except Exception as error:  # the errors of libusb
        raise TransientDeviceError(f"cannot search the USB bus for phones ({_words(error)})") from error


def _serial(transport: Any) -> str:
    # Without permission to open a phone, or while a server owns it, its serial number is unknown.
    with contextlib.suppress(Exception):
        return str(transport.serial_number)
    return ""


def _connect(name: str, transport: BaseTransport, key: Path | None, tell: Tell | None) -> AdbLink:
    asked = False

    def ask(_device: object) -> None:
        nonlocal asked
        asked = True
        if tell is not None:
            tell(f"{name}: look at the phone and accept 'Allow USB debugging'")

    try:
        return AdbLink(name, transport, [load_signer(key)], ask, ACCEPT_TIMEOUT_S)
    except OfaError:
        raise
    except Exception as error:  # libusb, sockets and adb-shell have no common base
        raise _failure(name, error, asked=asked) from error


def _failure(name: str, error: Exception, *, asked: bool) -> DeviceError:
    """Return the reason for a failed connection, and a remedy."""
    if asked or isinstance(error, DeviceAuthError | InvalidResponseError):
        # A phone can forget this computer when it restarts, and then asks its owner again.
        return TransientDeviceError(f"{name}: {UNAUTHORIZED}")
    if isinstance(error, InvalidCommandError):
        return DeviceError(
            f"{name}: the service there supports no direct connection; if it is a phone with wireless debugging, "
            "run `adb pair` and `adb connect`, and leave the adb server running"
        )
    if isinstance(error, ConnectionRefusedError):
        return TransientDeviceError(f"{name}: connection refused; enable adb over the network with `adb tcpip 5555`")
    if isinstance(error, TcpTimeoutException | TimeoutError):
        return TransientDeviceError(f"{name}: no answer; check that the phone is awake and in the same network")
    return TransientDeviceError(f"{name}: cannot connect ({_words(error)})")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
