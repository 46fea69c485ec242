"""Through an adb server that runs on this machine: it owns the phones on USB, and we do not fight for them."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from ofa_profiler.devices.adb_bridge import Bridge, ServiceRefused, Stream, silent
from ofa_profiler.errors import DeviceError, TransientDeviceError, UsageError

if TYPE_CHECKING:
    import adbutils

_TIMEOUT_S = 10.0
#: A write that the phone does not take for this long has failed.
_STALL_S = 60.0
#: What the server says when the phone refuses a service.
_REFUSED = "closed"


def find_server() -> adbutils.AdbClient | None:
    """The server of this machine, or None if none runs. None is ever started."""
    host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS") or os.environ.get("ANDROID_ADB_SERVER_HOST") or "127.0.0.1"
    text = os.environ.get("ANDROID_ADB_SERVER_PORT", "5037")
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise UsageError(f"ANDROID_ADB_SERVER_PORT={text!r:.40} is not a port")
    try:
        # Asked for first, because adbutils starts a server where there is none.
        socket.create_connection((host, int(text)), 2.0).close()
    except OSError:
        return None
    import adbutils

    return adbutils.AdbClient(host, int(text), socket_timeout=_TIMEOUT_S)


def server_phones(server: adbutils.AdbClient) -> dict[str, str]:
    """Serial number -> state (`device`, `unauthorized`, `offline`, ...). Raises `DeviceError`."""
    try:
        return {phone.serial: phone.state for phone in server.list()}
    except Exception as error:  # adbutils raises its own, of sockets, and of parsing
        raise TransientDeviceError(f"the adb server does not answer ({error}); try `adb kill-server`") from error


class SocketStream(Stream):
    """A connection to the server that has become one stream to the phone."""

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
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes a reader, which closing does not
            self._socket.close()

    def _gone(self, error: OSError) -> TransientDeviceError:
        if self._bridge.error is not None:
            return TransientDeviceError(str(self._bridge.error))
        return TransientDeviceError(f"{self._bridge.name}: the adb server dropped the connection ({error})")


class AdbServerBridge(Bridge):
    """One phone of the server."""

    def __init__(self, name: str, server: adbutils.AdbClient, serial: str) -> None:
        super().__init__(name)
        self._server, self._serial = server, serial
        self._streams: set[SocketStream] = set()
        self._streams_lock = threading.Lock()
        self.ping()
        self.watch()

    def open(self, service: str, timeout_s: float = 30.0) -> SocketStream:
        if self.error is not None:
            raise TransientDeviceError(str(self.error))
        connection: Any = None
        try:
            connection = self._server.make_connection(timeout=timeout_s)
            self._ask(connection, f"host:transport:{self._serial}")
            self._ask(connection, service)
            stream = SocketStream(self, connection.conn)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, DeviceError) or not isinstance(error, Exception):
                raise
            if str(error) == _REFUSED:
                raise ServiceRefused(f"{self.name}: the phone refuses the service {service[:40]!r}") from None
            raise TransientDeviceError(f"{self.name}: {error or type(error).__name__} (said the adb server)") from error
        with self._streams_lock:
            self._streams.add(stream)
        return stream

    def forget(self, stream: SocketStream) -> None:
        """`stream` is closed."""
        with self._streams_lock:
            self._streams.discard(stream)

    def _shut(self) -> None:
        with self._streams_lock:
            streams = list(self._streams)
        for stream in streams:
            stream.close()

    def _ask(self, connection: Any, request: str) -> None:
        data = request.encode("utf-8", "surrogateescape")
        if len(data) > 0xFFFF:
            raise DeviceError(f"{self.name}: a command of {len(data)} bytes is too long for adb")
        connection.conn.sendall(b"%04x" % len(data) + data)
        connection.check_okay()
