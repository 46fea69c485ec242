"""A TCP proxy in front of a device, with which a test cuts, stalls or slows the connection."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class FaultyProxy:
    """Forwards `port` to `target` on loopback. Its attributes may be changed at any time."""

    def __init__(self, target: int) -> None:
        self.target = target
        #: Take bytes and pass none on, as a link does whose other end was unplugged.
        self.stalled = False
        #: Bytes per second towards the device; None for as fast as it goes.
        self.upstream_rate: float | None = None
        #: Cut everything after this many bytes towards the device.
        self.cut_after: int | None = None
        #: Lose one byte after this many bytes towards the device, without a word.
        self.lose_after: int | None = None
        self.passed = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        # A small window, so that a sender feels a slow receiver at once.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    near.close()
                    continue
                self._pairs.append((near, far))
                threading.Thread(target=self._forward, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._forward, args=(far, near, False), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, upstream: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096 if upstream and self.upstream_rate else 1 << 16):
                while self.stalled:
                    time.sleep(0.01)
                if upstream:
                    self.passed += len(data)
                    if self.upstream_rate:
                        time.sleep(len(data) / self.upstream_rate)
                    if self.cut_after is not None and self.passed > self.cut_after:
                        self.cut_after = None
                        break
                    if self.lose_after is not None and self.passed > self.lose_after:
                        self.lose_after = None
                        data = data[1:]
                sink.sendall(data)
        _close(source, sink)

    def cut(self) -> None:
        """Close all connections; new ones are welcome."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _close(*pair)

    def close(self) -> None:
        self._listener.close()
        self.stalled = False
        self.cut()


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
