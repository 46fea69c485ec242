"""A connection through an adb server on this machine, which owns the phones on USB.

A request is its length as four hex digits, followed by its text. The answer is `OKAY`, or `FAIL` and a reason in the
same form. (`OVERVIEW.TXT` and `SERVICES.TXT` in the sources of adb.) This module starts no server. Without one, the
connection is direct.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ofa_profiler.devices.adb.address import AdbServer, server_address
from ofa_profiler.devices.adb.bridge import Bridge, ServiceRefused, Stream, silent
from ofa_profiler.devices.remote.shell import one_line
from ofa_profiler.errors import DeviceError, TransientDeviceError

_TIMEOUT_S = 10.0
#: A write that the phone does not accept for this long has failed.
_STALL_S = 60.0
#: The reason that the server gives when the phone refuses a service.
_REFUSED = "closed"
_LONGEST = 0xFFFF


@dataclass(frozen=True)
class AttachedPhone:
    """A phone of an adb server, or on USB."""

    #: Cheap phones share one (`0123456789ABCDEF`).
    serial: str
    #: `device`, `unauthorized`, `offline`, ...
    state: str
    #: The server's own number of the connection. Each time the phone is plugged in, it gets another one.
    transport_id: str = ""
    #: What else the server tells: `usb:1-2 model:Pixel_6`.
    details: str = ""


class _Failed(Exception):
    """The server refused a request. The message is its reason."""


def find_server() -> AdbServer | None:
    """Return the server of this machine; None if nothing listens there. Raises `UsageError` for a wrong address."""
    server = server_address()
    try:
        server.connect().close()
    except (OSError, UnicodeError):  # UnicodeError: not a valid host name
        return None
    return server


def server_phones(server: AdbServer) -> list[AttachedPhone]:
    """Return the phones of a server, without what only `with_transport_ids` asks. Raises `TransientDeviceError`."""
    try:
        listed = _list(server, "host:devices")
    except TimeoutError as error:
        raise _no_server(server, f"no answer for {_TIMEOUT_S:g} s") from error
    except (OSError, EOFError, ValueError, _Failed) as error:
        raise _no_server(server, one_line(str(error)) or type(error).__name__) from error
    pairs = (line.rpartition("\t") for line in listed.split("\n"))
    return [AttachedPhone(serial, state.rstrip("\r")) for serial, tab, state in pairs if tab]


def with_transport_ids(server: AdbServer, phones: Sequence[AttachedPhone]) -> list[AttachedPhone]:
    """Return all phones of a server with their transport ids, if it tells them (adb 1.0.40, of 2018, does)."""
    try:
        lines = [line for line in _list(server, "host:devices-l").split("\n") if line]
    except (OSError, EOFError, ValueError, _Failed):
        return list(phones)
    if len(lines) != len(phones):  # one was plugged in or unplugged meanwhile
        return list(phones)
    return [_with_details(phone, line) for phone, line in zip(phones, lines, strict=True)]


def _list(server: AdbServer, request: str) -> str:
    with server.connect() as connection:
        connection.settimeout(_TIMEOUT_S)
        _ask(connection, request)
        return _block(connection)


def _with_details(phone: AttachedPhone, line: str) -> AttachedPhone:
    """Take what the line of a phone adds. Only spaces separate its fields, and a serial number can contain some."""
    form = rf"{re.escape(phone.serial)}[ \t]+{re.escape(phone.state)} (.*?) ?transport_id:(\d+)\s*"
    if not (match := re.fullmatch(form, line, re.ASCII)):
        return phone
    details = [word for word in match[1].split() if not word.startswith(("product:", "device:"))]
    return dataclasses.replace(phone, transport_id=match[2], details=" ".join(details))


def _no_server(server: AdbServer, why: str) -> TransientDeviceError:
    return TransientDeviceError(
        f"the service on {server} does not answer like an adb server ({why}); run `adb kill-server`, or set "
        f"{server.source or 'ANDROID_ADB_SERVER_PORT'} to the {'address' if server.path else 'port'} of your adb server"
    )


def _ask(connection: socket.socket, request: str) -> None:
    """Send a request. Raises `_Failed` if it is refused; `OSError`, `EOFError` or `ValueError` for a wrong answer."""
    data = request.encode("utf-8", "surrogateescape")
    connection.sendall(b"%04x" % len(data) + data)
    answer = _exactly(connection, 4)
    if answer == b"FAIL":
        raise _Failed(_block(connection))
    if answer != b"OKAY":
        raise ValueError(f"the answer is {answer!r}")


def _block(connection: socket.socket) -> str:
    """Read a text with its length before it."""
    return _exactly(connection, int(_exactly(connection, 4), 16)).decode("utf-8", "replace")


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError("it closed the connection without an answer")
        data += more
    return data


class SocketStream(Stream):
    """A connection to the server that is now one stream to the phone."""

    def __init__(self, bridge: AdbServerBridge, connection: socket.socket) -> None:
        self._bridge, self._socket = bridge, connection
        self._closed = False

    def read(self, limit: int, silence_s: float) -> bytes:
        try:
            self._socket.settimeout(silence_s)
            return self._socket.recv(limit)
        except TimeoutError:
            raise silent(self._bridge.name, silence_s) from None
        except OSError as error:
            raise self._gone(error) from error

    def write(self, data: bytes) -> None:
        try:
            self._socket.settimeout(_STALL_S)
            self._socket.sendall(data)
        except OSError as error:
            raise self._gone(error) from error

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._bridge.forget(self)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes a reader; closing does not
            self._socket.close()

    def _gone(self, error: OSError) -> TransientDeviceError:
        if self._bridge.error is not None:
            return TransientDeviceError(str(self._bridge.error))
        return TransientDeviceError(f"{self._bridge.name}: the adb server closed the connection ({error})")


class AdbServerBridge(Bridge):
    """A phone of the server, chosen by its serial number, or by its transport id if several have that number."""

    def __init__(self, name: str, server: AdbServer, serial: str, transport_id: str = "") -> None:
        super().__init__(name)
        self._server = server
        self._choice = f"host:transport-id:{transport_id}" if transport_id else f"host:transport:{serial}"
        self._streams: set[SocketStream] = set()
        self._streams_lock = threading.Lock()
        self.ping()
        self.watch()

    def open(self, service: str, timeout_s: float = 30.0) -> SocketStream:
        if self.error is not None:
            raise TransientDeviceError(str(self.error))
        requests = (self._choice, service)
        for request in requests:
            if len(request.encode("utf-8", "surrogateescape")) > _LONGEST:
                raise DeviceError(f"{self.name}: a command of {len(request)} characters is too long for adb")
        connection = None
        try:
            connection = self._server.connect()
            connection.settimeout(timeout_s)
            for request in requests:
                _ask(connection, request)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, _Failed) and str(error) == _REFUSED:
                raise ServiceRefused(f"{self.name}: the phone refuses the service {service[:40]!r}") from None
            if isinstance(error, _Failed):
                raise TransientDeviceError(f"{self.name}: the adb server reports: {one_line(str(error))}") from None
            if isinstance(error, OSError | EOFError | ValueError):
                why = one_line(str(error)) or type(error).__name__
                raise TransientDeviceError(f"{self.name}: the adb server does not answer ({why})") from error
            raise
        stream = SocketStream(self, connection)
        with self._streams_lock:
            self._streams.add(stream)
        return stream

    def forget(self, stream: SocketStream) -> None:
        """Remove a closed stream."""
        with self._streams_lock:
            self._streams.discard(stream)

    def _shut(self) -> None:
        with self._streams_lock:
            streams = list(self._streams)
        for stream in streams:
            stream.close()
