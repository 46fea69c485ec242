"""A TCP proxy in front of a device, with which a test cuts, stalls or slows the connection."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Literal


class Proxy:
    """Carries connections on loopback to `target`. Its attributes may be changed at any time."""

    def __init__(self, target: int) -> None:
        self.target = target
        #: Take bytes and pass them on later, when this is False again.
        self.held = False
        #: Bytes per second towards the device; None for as fast as it goes.
        self.upstream_rate: float | None = None
        #: Cut everything, once, when more than so many bytes went towards the device.
        self.cut_after: int | None = None
        #: Bytes towards the device that a connection carries before everything is cut, every time.
        self.life: int | None = None
        #: What becomes of bytes as they are passed on; `Damage` is one for this.
        self.damage: Callable[[bytes, bool], bytes] = lambda data, _upstream: data
        #: Bytes that went towards the device, and connections.
        self.passed = self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        # A small window, so that a sender feels a slow receiver at once.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._silent: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.accepted += 1
                try:
                    far = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    near.close()
                    continue
                self._pairs.append((near, far))
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink, sink is far), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, upstream: bool) -> None:
        carried = 0
        try:
            while data := source.recv(4096 if upstream and self.upstream_rate else 1 << 16):
                while self.held:
                    time.sleep(0.01)
                if upstream:
                    carried += len(data)
                    self._count(data, carried)
                data = self.damage(data, upstream)
                if source not in self._silent:
                    sink.sendall(data)
            if source not in self._silent:
                sink.shutdown(socket.SHUT_WR)
        except OSError:  # one side was killed or reset: the other is to know
            if source not in self._silent:
                _reset(source, sink)

    def _count(self, data: bytes, carried: int) -> None:
        """Take note of what goes towards the device, and slow it down. Raises `OSError` when it is cut."""
        self.passed += len(data)
        if self.upstream_rate:
            time.sleep(len(data) / self.upstream_rate)
        if self._cuts_now(carried):
            self.cut()
            raise ConnectionResetError

    def _cuts_now(self, carried: int) -> bool:
        if self.cut_after is not None and self.passed > self.cut_after:
            self.cut_after = None
            return True
        return self.life is not None and carried > self.life

    def cut(self) -> None:
        """Reset all connections, on both sides; new ones are welcome."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _reset(*pair)

    def stall(self) -> None:
        """Drop every byte of the connections there are, as a pulled cable does; neither side is told."""
        self._silent.update(sock for pair in self._pairs for sock in pair)

    def close(self) -> None:
        self.held = False
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Damage:
    """Drops, changes or adds one byte, once: that at `position` of all that goes in one direction."""

    def __init__(self, position: int, kind: Literal["drop", "change", "add"], *, upstream: bool) -> None:
        self.position, self.kind, self.upstream = position, kind, upstream
        self.done = False
        self._passed = 0
        self._lock = threading.Lock()  # several connections may pass at once

    def __call__(self, data: bytes, upstream: bool) -> bytes:
        if upstream != self.upstream or self.done:
            return data
        with self._lock:
            at = self.position - self._passed
            self._passed += len(data)
            if at >= len(data) or self.done:
                return data
            self.done = True
        old = data[at : at + 1]
        new = {"drop": b"", "change": bytes([old[0] ^ 0x10]), "add": old + old}[self.kind]
        return data[:at] + new + data[at + 1 :]


def _reset(*sockets: socket.socket) -> None:
    for sock in sockets:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
