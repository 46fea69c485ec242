"""A TCP proxy on loopback that can cut connections, or let them go silent as a pulled cable does."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading


class Proxy:
    """Carries connections to `port`. `stall`: what is sent from now on, on old connections, arrives nowhere."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.stalled: set[socket.socket] = set()
        self.accepted = 0
        #: Bytes towards the device after which everything is cut, once.
        self.cut_after: int | None = None
        #: Bytes towards the device that a connection carries before it is cut, every time.
        self.life: int | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                self.accepted += 1
                try:
                    far = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    near.close()
                    continue
                self.pairs.append((near, far))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                carried += len(data)
                if self.life is not None and carried > self.life and target.getpeername()[1] == self.target:
                    self.cut()
                    return
                if self.cut_after is not None and target.getpeername()[1] == self.target:
                    self.cut_after -= len(data)
                    if self.cut_after < 0:
                        self.cut_after = None
                        self.cut()
                        return
                if source not in self.stalled:
                    target.sendall(data)
            if source not in self.stalled:
                target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Reset every connection, on both sides."""
        for pair in self.pairs:
            for sock in pair:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
        self.pairs.clear()

    def stall(self) -> None:
        """Drop every byte of the connections there are; neither side is told."""
        self.stalled.update(sock for pair in self.pairs for sock in pair)

    def close(self) -> None:
        self.cut()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
