"""A web server that serves one file, well or badly, and counts what it sends."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Mirror:
    """`behaviours` says what happens to each request in turn; the last goes on for ever.

    whole            as it should be, with ranges
    drop:N           the connection is cut after N bytes of the body
    stall:N          nothing comes any more after N bytes
    slow             a piece now and then
    norange          ranges are ignored;  norange-drop:N  and it is cut
    elsewhere        the answer to a range is another part of the file
    status:CODE      this status
    leads:URL        a redirect;  loop  to itself
    page             a web page, with status 200
    chunked, endless without a length: in chunks, or until the connection ends
    encoded          compressed, though that was not asked for
    """

    data: bytes
    behaviours: list[str] = field(default_factory=lambda: ["whole"])
    etag: str | None = '"one"'
    said_length: int | None = None
    port: int = 0
    requests: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0  # bytes of bodies

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"{self.base}/file"

    def next_behaviour(self) -> str:
        return self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mirror: Mirror

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self.mirror.requests.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
        name, _, argument = self.mirror.next_behaviour().partition(":")
        self.close_connection = True
        with contextlib.suppress(ConnectionError):
            getattr(self, "_" + name.replace("-", "_"))(argument)

    def _start(self) -> int:
        """Where the answer starts, by the request's range, which counts only for the file as it is now."""
        wanted = self.headers.get("Range")
        if wanted is None or self.headers.get("If-Range") not in (None, self.mirror.etag):
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def _headers(self, start: int, shift: int = 0) -> bytes:
        data = self.mirror.data
        if start >= len(data) > 0:
            self._status("416")
            return b""
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start + shift}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(self.mirror.said_length or len(data) - start))
        if self.mirror.etag is not None:
            self.send_header("ETag", self.mirror.etag)
        self.end_headers()
        return data[start:]

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.mirror.sent += len(data)

    def _whole(self, _argument: str) -> None:
        self._send(self._headers(self._start()))

    def _drop(self, count: str) -> None:
        self._send(self._headers(self._start())[: int(count)])

    def _stall(self, count: str) -> None:
        self._drop(count)
        self.wfile.flush()
        with contextlib.suppress(OSError):  # until the other side has enough
            self.connection.settimeout(20)
            self.connection.recv(1)

    def _slow(self, _argument: str) -> None:
        body = self._headers(self._start())
        for at in range(0, len(body), 1 << 15):
            self._send(body[at : at + (1 << 15)])
            time.sleep(0.02)

    def _norange(self, _argument: str) -> None:
        self._send(self._headers(0))

    def _norange_drop(self, count: str) -> None:
        self._send(self._headers(0)[: int(count)])

    def _elsewhere(self, _argument: str) -> None:
        self._send(self._headers(self._start(), shift=7))

    def _status(self, code: str) -> None:
        self.send_response(int(code))
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"oops")

    def _leads(self, to: str) -> None:
        self.send_response(302)
        self.send_header("Location", to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _loop(self, _argument: str) -> None:
        self._leads(self.path)

    def _page(self, _argument: str) -> None:
        page = b"<!DOCTYPE html><title>Log in to this network</title>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self._send(page)

    def _chunked(self, _argument: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(self.mirror.data), 50_000):
            piece = self.mirror.data[at : at + 50_000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.mirror.sent += len(piece)
        self.wfile.write(b"0\r\n\r\n")

    def _endless(self, _argument: str) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self._send(self.mirror.data)

    def _encoded(self, _argument: str) -> None:
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(self.mirror.data)))
        self.end_headers()
        self._send(self.mirror.data)


@contextlib.contextmanager
def serving(data: bytes, *behaviours: str, **more: Any) -> Iterator[Mirror]:
    mirror = Mirror(data, list(behaviours) or ["whole"], **more)
    handler = type("Handler", (_Handler,), {"mirror": mirror})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    mirror.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def nobody() -> str:
    """An address on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/file"


def git_digest(data: bytes) -> str:
    return "git:" + hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
