"""Something that listens where an adb server should: one that is like Google's as far as we need it, or a stranger."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass


def exactly(connection: socket.socket, size: int) -> bytes:
    """Read `size` bytes. Raises `EOFError` if fewer come."""
    data = b""
    while len(data) < size:
        if not (more := connection.recv(size - len(data))):
            raise EOFError
        data += more
    return data


def block(text: bytes) -> bytes:
    """A text with its length before it, as adb sends it."""
    return b"%04x" % len(text) + text


class Listener:
    """Serves every connection to a port of loopback, or to the Unix socket `path`, with `serve`, each in a thread."""

    def __init__(self, serve: Callable[[socket.socket], None], path: str = "") -> None:
        self.serve = serve
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.listener.listen()
        else:
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.port = int(self.listener.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), connection:
            self.serve(connection)

    def close(self) -> None:
        # Closing alone leaves the port open for as long as a thread waits on it.
        for one in [self.listener, *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@dataclass(frozen=True)
class Listed:
    """A phone as `adb devices -l` lists it."""

    serial: str
    state: str = "device"
    transport_id: int | None = None
    details: str = "usb:1-1 product:xyz model:xyz device:xyz"

    @property
    def short(self) -> str:
        return f"{self.serial}\t{self.state}\n"

    @property
    def long(self) -> str:
        number = "" if self.transport_id is None else f" transport_id:{self.transport_id}"
        return f"{self.serial:<22} {self.state} {self.details}{number}\n"


class AdbServerLike(Listener):
    """Lists `phones`, each of which runs every command with exit code 0. An old one has no transport ids."""

    def __init__(
        self, phones: dict[str, str] | list[Listed], *, shell_v2: bool = True, old: bool = False, path: str = ""
    ) -> None:
        self.phones, self.shell_v2, self.old = phones, shell_v2, old
        self.requests: list[str] = []
        super().__init__(self._answer, path)

    @property
    def _listed(self) -> list[Listed]:
        return [Listed(*pair) for pair in self.phones.items()] if isinstance(self.phones, dict) else self.phones

    def _answer(self, connection: socket.socket) -> None:
        while True:
            request = exactly(connection, int(exactly(connection, 4), 16)).decode()
            self.requests.append(request)
            if request in ("host:devices", "host:devices-l"):
                is_long = request.endswith("-l") and not self.old
                listed = "".join(phone.long if is_long else phone.short for phone in self._listed)
                connection.sendall(b"OKAY" + block(listed.encode()))
                return
            if request.startswith("host:transport"):
                if why := self._why_not(request):
                    connection.sendall(b"FAIL" + block(why))
                    return
                connection.sendall(b"OKAY")
            elif request.startswith("shell,v2,raw:") and self.shell_v2:
                mark = request.removeprefix("shell,v2,raw:").removeprefix("echo ").partition(";")[0].encode() + b"\n"
                connection.sendall(b"OKAY" + struct.pack("<BI", 1, len(mark)) + mark + struct.pack("<BIB", 3, 1, 0))
                connection.recv(1 << 16)
            else:
                connection.sendall(b"FAIL" + block(b"closed"))
                return

    def _why_not(self, request: str) -> bytes:
        """Why no phone is chosen, as Google's server tells it."""
        number = request.removeprefix("host:transport-id:")
        serial = request.removeprefix("host:transport:")
        found = [phone for phone in self._listed if phone.serial == serial or str(phone.transport_id) == number]
        if not found:
            return b"device not found"
        if len(found) > 1:
            return b"more than one device"
        return b"" if found[0].state == "device" else f"device {found[0].state}".encode()
