"""Packets to and from the adb daemon, over the transports of adb-shell: one link, many streams.

adb-shell provides the transports (TCP, USB), the packet format, and the handshake with keys. Its streams are not used:
they have no exit codes, hold one lock while they wait, lose synchronization when a timeout occurs inside a packet, and
spin when the phone closes the connection. Here one thread reads all packets and distributes them, so a long silence
needs no special case. Protocol: `protocol.txt` in the sources of adb.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import Any

from adb_shell import constants
from adb_shell.adb_device import AdbDevice as Handshake
from adb_shell.adb_message import AdbMessage, checksum, unpack
from adb_shell.exceptions import TcpTimeoutException, UsbReadFailedError
from adb_shell.transport.base_transport import BaseTransport
from adb_shell.transport.tcp_transport import TcpTransport

from ofa_profiler.devices.adb.bridge import Bridge, ServiceRefused, Stream, silent
from ofa_profiler.errors import DeviceError, TransientDeviceError

CONNECT_TIMEOUT_S = 10.0
_TICK_S = 1.0
#: If a packet is incomplete, or not accepted by the phone, for this long, the link is dead.
_STALL_S = 30.0
_CHUNK = 64 << 10
#: The daemon offers the service `shell,v2` only to hosts that announce it.
_BANNER = b"features=shell_v2,cmd"


class WholeTcpTransport(TcpTransport):  # type: ignore[misc]
    """The TCP transport of adb-shell, with two defects fixed.

    Its `bulk_write` ignores that `send` may send only a part, after which the phone waits for the rest for ever. After
    the phone has closed the connection, its `bulk_read` returns nothing again and again until a timeout.
    """

    def connect(self, transport_timeout_s: float | None) -> None:
        super().connect(transport_timeout_s)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        data: bytes = super().bulk_read(numbytes, transport_timeout_s)
        if not data:
            raise ConnectionResetError("the phone closed the connection")
        return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        rest = memoryview(data)
        while rest:
            if not select.select([], [self._connection], [], transport_timeout_s)[1]:
                raise TcpTimeoutException(f"the phone accepted no data for {transport_timeout_s:g} s")
            with contextlib.suppress(BlockingIOError):
                rest = rest[self._connection.send(rest) :]
        return len(data)


class LinkStream(Stream):
    """One stream of a link. A packet is confirmed (OKAY) when it has been read, which bounds the memory."""

    def __init__(self, link: AdbLink, local_id: int) -> None:
        self.link, self.local_id, self.remote_id = link, local_id, 0
        self.opened = threading.Event()
        self.refused = False
        self.ended = False
        self._may_write = False
        self._changed = threading.Condition()
        self._packets: list[bytes] = []

    def receive(self, command: bytes, remote_id: int, data: bytes) -> None:
        """Receive a packet. Only the reader thread of the link calls this."""
        with self._changed:
            if command == constants.OKAY:
                self.remote_id, self._may_write = remote_id, True
                self.opened.set()
            elif command == constants.WRTE:
                if len(self._packets) > 4:
                    raise ValueError("the phone does not wait for confirmations")
                self._packets.append(data)
            else:
                self.refused = not self.opened.is_set()
                self.ended = True
                self.opened.set()
            self._changed.notify_all()

    def wake(self) -> None:
        """Make waiting threads check the state of the link again."""
        self.opened.set()
        with self._changed:
            self._changed.notify_all()

    def read(self, limit: int, silence_s: float) -> bytes:
        deadline = time.monotonic() + silence_s
        with self._changed:
            while not self._packets and not self.ended:
                self.link.check()
                if time.monotonic() > deadline:
                    raise silent(self.link.name, silence_s)
                self._changed.wait(_TICK_S)
            if not self._packets:
                return b""
            data = self._packets[0][:limit]
            self._packets[0] = self._packets[0][limit:]
            if whole := not self._packets[0]:
                self._packets.pop(0)
        if whole and not self.ended:
            self.link.send(constants.OKAY, self.local_id, self.remote_id)
        return data

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), min(_CHUNK, self.link.max_data)):
            with self._changed:
                while not self._may_write and not self.ended:
                    self.link.check()
                    self._changed.wait(_TICK_S)
                self.link.check()
                if self.ended:
                    raise TransientDeviceError(f"{self.link.name}: the phone closed the stream during a write")
                self._may_write = False
            chunk = data[start : start + min(_CHUNK, self.link.max_data)]
            self.link.send(constants.WRTE, self.local_id, self.remote_id, chunk)

    def close(self) -> None:
        self.link.forget(self)
        if not self.ended:
            self.ended = True
            with contextlib.suppress(DeviceError):
                self.link.send(constants.CLSE, self.local_id, self.remote_id)
        self.wake()


class AdbLink(Bridge):
    """A connection to the daemon, authenticated by `signers`. `ask` is called when the phone asks its owner."""

    def __init__(self, name: str, transport: BaseTransport, signers: list[Any], ask: Any, patience_s: float) -> None:
        super().__init__(name)
        self._transport = transport
        self._send_lock = threading.Lock()
        self._streams: dict[int, LinkStream] = {}
        self._streams_lock = threading.Lock()
        self._last_id = 0
        handshake = Handshake(transport, CONNECT_TIMEOUT_S, banner=_BANNER)
        try:
            handshake.connect(
                signers, CONNECT_TIMEOUT_S, auth_timeout_s=patience_s, read_timeout_s=patience_s, auth_callback=ask
            )
        except BaseException:
            with contextlib.suppress(Exception):
                transport.close()
            raise
        self.max_data = max(4096, min(int(handshake._maxdata), constants.MAX_ADB_DATA))
        self._reader = threading.Thread(target=self._pump, name="adb-read", daemon=True)
        self._reader.start()
        self.watch()

    def check(self) -> None:
        """Raise the error of a lost link."""
        if self.error is not None:
            raise TransientDeviceError(str(self.error))
        if self._closing.is_set():
            raise TransientDeviceError(f"{self.name}: the connection is closed")

    def open(self, service: str, timeout_s: float = 30.0) -> LinkStream:
        self.check()
        name = service.encode("utf-8", "surrogateescape") + b"\0"
        if len(name) > self.max_data:
            raise DeviceError(f"{self.name}: a command of {len(name)} bytes is too long for this phone")
        with self._streams_lock:
            self._last_id += 1
            stream = self._streams[self._last_id] = LinkStream(self, self._last_id)
        try:
            self.send(constants.OPEN, stream.local_id, 0, name)
            answered = stream.opened.wait(timeout_s)
            self.check()
            if not answered:
                raise TransientDeviceError(f"{self.name}: no answer within {timeout_s:g} s")
            if stream.refused:
                raise ServiceRefused(f"{self.name}: the phone refuses the service {service[:40]!r}")
        except BaseException:
            self.forget(stream)
            raise
        return stream

    def send(self, command: bytes, arg0: int, arg1: int, data: bytes = b"") -> None:
        """Send one packet. Raises `TransientDeviceError`."""
        self.check()
        message = AdbMessage(command, arg0, arg1, data)
        try:
            with self._send_lock:
                self._transport.bulk_write(message.pack(), _STALL_S)
                if data:
                    self._transport.bulk_write(data, _STALL_S)
        except Exception as error:  # libusb and sockets have no common error; a part may have been sent
            raise self.fail(f"the connection is lost ({error})") from error

    def forget(self, stream: LinkStream) -> None:
        """Ignore further packets of `stream`."""
        with self._streams_lock:
            self._streams.pop(stream.local_id, None)

    def _shut(self) -> None:
        # Closing the transport wakes its reader; adb-shell allows that.
        with contextlib.suppress(Exception):
            self._transport.close()
        with self._streams_lock:
            streams = list(self._streams.values())
        for stream in streams:
            stream.wake()

    def close(self) -> None:
        super().close()
        self._reader.join(2 * _TICK_S)

    def _pump(self) -> None:
        try:
            while not self._closing.is_set():
                self._distribute(*self._receive())
        except Exception as error:  # of any kind, because the phone may violate the protocol
            if not self._closing.is_set():
                self.fail(f"the connection is lost ({error})")

    def _distribute(self, command: bytes, remote_id: int, local_id: int, data: bytes) -> None:
        if command not in (constants.OKAY, constants.WRTE, constants.CLSE):
            return
        with self._streams_lock:
            stream = self._streams.get(local_id)
            if stream is not None and command == constants.CLSE:
                del self._streams[local_id]
        if stream is not None:
            stream.receive(command, remote_id, data)
        elif command == constants.WRTE:
            self.send(constants.CLSE, local_id, remote_id)  # the stream is closed here

    def _receive(self) -> tuple[bytes, int, int, bytes]:
        word, arg0, arg1, length, expected = unpack(self._exactly(constants.MESSAGE_SIZE, idle=True))
        command = constants.WIRE_TO_ID.get(word)
        if command is None or length > constants.MAX_ADB_DATA:
            raise ValueError("the phone sent data that is not an adb packet")
        data = self._exactly(length, idle=False) if length else b""
        if data and expected and checksum(data) != expected:
            raise ValueError("a packet was damaged")
        return command, arg0, arg1, data

    def _exactly(self, length: int, *, idle: bool) -> bytes:
        """Read `length` bytes. With `idle`, the first may take any time."""
        data = bytearray()
        moved = time.monotonic()
        while len(data) < length:
            more = self._some(length - len(data))
            if more:
                moved = time.monotonic()
                data += more
            elif self._closing.is_set() or self.error is not None:
                raise ConnectionAbortedError("closed")
            elif (data or not idle) and time.monotonic() - moved > _STALL_S:
                raise TimeoutError(f"a packet is incomplete for {_STALL_S:g} s")
        return bytes(data)

    def _some(self, length: int) -> bytes:
        """Read what arrives within a second. USB returns its data at the timeout."""
        try:
            return bytes(self._transport.bulk_read(length, _TICK_S))
        except TcpTimeoutException:
            return b""
        except UsbReadFailedError as error:
            cause = getattr(error, "usb_error", None)
            if type(cause).__name__ != "USBErrorTimeout":
                raise
            return bytes(getattr(cause, "received", b""))
