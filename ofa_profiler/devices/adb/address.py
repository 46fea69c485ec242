"""Where the adb server listens, from the same environment variables as Google's adb.

`ADB_SERVER_SOCKET` comes first: `tcp:PORT`, `tcp:HOST:PORT` (`tcp:[::1]:PORT`), `localfilesystem:PATH` (`local:PATH`)
or `localabstract:NAME`. Else `ANDROID_ADB_SERVER_ADDRESS` and `ANDROID_ADB_SERVER_PORT` give host and port.
(`socket_spec.cpp` and `client/commandline.cpp` in the sources of adb.) An empty variable counts as not set.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass

from ofa_profiler.errors import UsageError

_CONNECT_TIMEOUT_S = 2.0
_SOCKET = "ADB_SERVER_SOCKET"
_HOSTS = "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_ADB_SERVER_HOST"
_PORT = "ANDROID_ADB_SERVER_PORT"
_FORMS = "tcp:PORT, tcp:HOST:PORT, localfilesystem:PATH or localabstract:NAME"
_LONGEST_PATH = 107


@dataclass(frozen=True)
class AdbServer:
    """The address of an adb server: host and port, or the path of a Unix socket (abstract if it begins with NUL)."""

    host: str
    port: int
    path: str = ""
    #: The environment variable that gives the address; empty for the default.
    source: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"localabstract:{self.path[1:]}" if self.path.startswith("\0") else f"localfilesystem:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_named(self) -> bool:
        """Whether somebody says that there is a server, and not only at which port it would be."""
        return self.source not in ("", _PORT)

    def connect(self) -> socket.socket:
        """Return a connection. Raises `OSError`, or `UnicodeError` for what is no name of a host."""
        if not self.path:
            connection = socket.create_connection((self.host, self.port), _CONNECT_TIMEOUT_S)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return connection
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(_CONNECT_TIMEOUT_S)
            connection.connect(self.path)
        except BaseException:
            connection.close()
            raise
        return connection


def server_address() -> AdbServer:
    """Return the address that the environment gives, or the default. Raises `UsageError` for one that cannot be."""
    if spec := os.environ.get(_SOCKET):
        return _of_socket(spec)
    named = next((name for name in _HOSTS if os.environ.get(name)), "")
    text = os.environ.get(_PORT)
    if text and not _is_port(text):
        raise UsageError(f"{_PORT}={text!r:.40} is not a port")
    source = named or (_PORT if text else "")
    return AdbServer(os.environ.get(named, "127.0.0.1"), int(text or 5037), source=source)


def _of_socket(spec: str) -> AdbServer:
    kind, _, rest = spec.partition(":")
    if kind == "tcp":
        host, colon, port = rest.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        # Without brackets, an IPv6 address has no port.
        if _is_port(port) and (not colon or (host and (":" not in host or f"[{host}]" in rest))):
            return AdbServer(host or "127.0.0.1", int(port), source=_SOCKET)
    elif kind in ("localfilesystem", "local", "localabstract") and rest:
        _check_path(spec, kind, rest)
        return AdbServer("", 0, "\0" + rest if kind == "localabstract" else rest, _SOCKET)
    raise UsageError(f"{_SOCKET}={spec!r:.100} is not the address of an adb server: expected {_FORMS}")


def _check_path(spec: str, kind: str, path: str) -> None:
    if not hasattr(socket, "AF_UNIX") or (kind == "localabstract" and not sys.platform.startswith("linux")):
        raise UsageError(f"{_SOCKET}={spec!r:.100}: this system has no such sockets; use tcp:HOST:PORT")
    if len(os.fsencode(path)) > _LONGEST_PATH or "\0" in path:
        raise UsageError(f"{_SOCKET}={spec!r:.100}: the path of a socket has at most {_LONGEST_PATH} characters")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10 and 0 < int(text) < 65536
