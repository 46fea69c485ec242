"""Programs on the phone, over a stream to its daemon.

Since Android 7 the daemon has the service `shell,v2`: separate packets for stdout, stderr and the exit code, and one
that closes stdin. (adb-shell itself uses only the service `shell`, which has none of this, and a terminal that echoes
input and changes line ends.) Only the packet with the exit code ends a program. A stream that ends without it is a
lost connection, never a success; Google's own client returns 0 then.
"""

from __future__ import annotations

import struct

from ofa_profiler.devices.adb.bridge import Bridge, ServiceRefused, Stream
from ofa_profiler.devices.remote.shell import SILENCE_S, Process
from ofa_profiler.errors import DeviceError, TransientDeviceError

_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_HEADER = struct.Struct("<BI")
_READ = 64 << 10
#: How much of the end of stderr is kept.
_KEPT = 64 << 10
#: Packets of the daemon are at most 1 MiB.
_MAX_PACKET = 4 << 20


def start_program(bridge: Bridge, line: str) -> AdbProcess:
    """Run a command line in the phone's shell. Raises `DeviceError`."""
    try:
        # raw: no terminal
        return AdbProcess(bridge.name, bridge.open("shell,v2,raw:" + line))
    except ServiceRefused as error:
        raise DeviceError(
            f"{bridge.name}: the phone refuses commands over adb; it must have Android 7 or newer"
        ) from error


class AdbProcess(Process):
    """A process of `shell,v2` (`shell_protocol.h` of adb). A signal appears as exit code 128 plus its number."""

    def __init__(self, name: str, stream: Stream) -> None:
        self.name = name
        self._stream = stream
        self._packets = bytearray()
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._exit_code: int | None = None

    def read(self, size: int, timeout_s: float = SILENCE_S) -> bytes:
        while not self._stdout and self._exit_code is None:
            self._receive(timeout_s)
        data = bytes(self._stdout[:size])
        del self._stdout[:size]
        return data

    def wait(self) -> int:
        while self._exit_code is None:
            self._receive(SILENCE_S)
            self._stdout.clear()
        return self._exit_code

    def last_words(self) -> str:
        return self._stderr[-_KEPT:].decode("utf-8", "replace")

    def close(self) -> None:
        self._stream.close()  # the daemon closes its stdin and sends it SIGHUP

    def write(self, data: bytes) -> None:
        size = _READ - _HEADER.size
        for start in range(0, len(data), size):
            chunk = data[start : start + size]
            self._stream.write(_HEADER.pack(_STDIN, len(chunk)) + chunk)

    def close_input(self) -> None:
        self._stream.write(_HEADER.pack(_CLOSE_STDIN, 0))

    def _receive(self, timeout_s: float) -> None:
        data = self._stream.read(_READ, timeout_s)
        if not data:
            raise TransientDeviceError(f"{self.name}: the connection was lost while a program was running on the phone")
        self._packets += data
        while (packet := self._next_packet()) is not None:
            kind, body = packet
            if kind == _STDOUT:
                self._stdout += body
            elif kind == _STDERR:
                self._stderr += body
                del self._stderr[: -2 * _KEPT]
            elif kind == _EXIT:
                if len(body) != 1:
                    raise DeviceError(f"{self.name}: the phone sent an exit code of {len(body)} bytes")
                self._exit_code = body[0]

    def _next_packet(self) -> tuple[int, bytes] | None:
        if len(self._packets) < _HEADER.size:
            return None
        kind, length = _HEADER.unpack_from(self._packets)
        if kind > _CLOSE_STDIN or length > _MAX_PACKET:
            raise DeviceError(f"{self.name}: the phone does not follow adb's shell protocol")
        if len(self._packets) < _HEADER.size + length:
            return None
        body = bytes(self._packets[_HEADER.size : _HEADER.size + length])
        del self._packets[: _HEADER.size + length]
        return kind, body
