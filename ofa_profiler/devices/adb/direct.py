"""Straight to the adb daemon of a phone, over TCP or USB, without Google's adb."""

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
#: How long the owner of a phone has to accept our key, while the command waits.
ACCEPT_TIMEOUT_S = 20.0
UNAUTHORIZED = (
    "the phone has not allowed this computer yet: look at its screen, accept 'Allow USB debugging' and run this again"
)


def connect_tcp(name: str, host: str, port: int, *, key: Path | None = None, tell: Tell | None = None) -> AdbLink:
    """The daemon at `host:port`. Raises `DeviceError`, with what to do."""
    return _connect(name, WholeTcpTransport(host, port), key, tell)


def connect_usb(name: str, serial: str, *, key: Path | None = None, tell: Tell | None = None) -> AdbLink:
    """The phone on USB that has this serial number. Raises `DeviceError`, transient where it may come back."""
    for found, transport in usb_phones():
        if found == serial:
            return _connect(name, transport, key, tell)
    raise TransientDeviceError(f"{name}: no such phone on USB; `--device adb:` lists what is attached")


def usb_phones() -> Iterator[tuple[str, BaseTransport]]:
    """Phones with USB debugging switched on: serial number and transport.

    Raises `TransientDeviceError`: a phone that an adb server had comes back when the server does.
    """
    if importlib.util.find_spec("usb1") is None:
        raise TransientDeviceError(
            "phones on USB need the package libusb1 (pip install libusb1), or a running adb server"
        )
    try:
        from adb_shell.transport.usb_transport import UsbTransport
    except Exception as error:  # the package is there; the library that it loads is not, or finds no USB
        raise TransientDeviceError(
            f"phones on USB need libusb 1.0, which does not work here ({_words(error)})"
        ) from error
    try:
        yield from ((_serial(transport), transport) for transport in UsbTransport.find_all_adb_devices())
    except OfaError:
        raise
    except Exception as error:  # libusb's own errors
        raise TransientDeviceError(f"the USB bus cannot be searched for phones ({_words(error)})") from error


def _serial(transport: Any) -> str:
    # A phone that we may not open, or that a server holds, does not tell its number.
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
    """Why there is no connection, and what to do."""
    if asked or isinstance(error, DeviceAuthError | InvalidResponseError):
        # A phone that forgot this computer when it restarted asks its owner again.
        return TransientDeviceError(f"{name}: {UNAUTHORIZED}")
    if isinstance(error, InvalidCommandError):
        return DeviceError(
            f"{name}: what answers there cannot be used directly; if it is a phone with wireless debugging, "
            "pair it with `adb pair`, then `adb connect`, and leave the adb server running"
        )
    if isinstance(error, ConnectionRefusedError):
        return TransientDeviceError(f"{name}: nothing listens there; `adb tcpip 5555` switches adb over the network on")
    if isinstance(error, TcpTimeoutException | TimeoutError):
        return TransientDeviceError(f"{name}: no answer; is the phone awake, and in the same network?")
    return TransientDeviceError(f"{name}: cannot connect ({_words(error)})")


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
