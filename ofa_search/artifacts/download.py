"""Fetches one file over HTTP: from mirrors in turn, in pieces if it must be, whole or not at all.

What has come so far is in `NAME.part`, and in `NAME.part.json` where it came from; a later call goes on
there, also after a kill. Two pieces are only put together where they belong together: the
server says that the file is still the same (If-Range), or the content is known by its hash, and then
any mirror may give the rest. `NAME.lock` lets one process fetch while others wait for the file.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import ofa_profiler
from ofa_profiler.base.files import locked
from ofa_profiler.errors import UsageError

_CHUNK = 1 << 16
#: Pauses before each round over the mirrors. A mirror that sends something is asked for the rest at once,
#: but not without end: one that drops every connection after a few bytes is no use.
_PAUSES_S = (0.0, 1.0, 4.0)
_MAX_PIECES = 100
_TIMEOUT_S = 30.0  # without a sign of life
_MAX_REDIRECTS = 5

#: Called with the bytes that are there, those there are in all (None: unknown) and the server's name.
Progress = Callable[[int, "int | None", str], None]


@dataclass(frozen=True)
class Content:
    """What is known of a file before it comes.

    `digest` is `sha256:HEX`, or `git:HEX` for the name that git gives its content; None where nobody has
    published one. `starts` are the first bytes that it may have: an error page has others.
    """

    digest: str | None = None
    size: int | None = None
    max_bytes: int = 512 << 20
    starts: tuple[bytes, ...] = ()


class FetchError(UsageError):
    """No address gave the file; the message says what each of them did."""


class _FailedError(Exception):
    """An address did not give the file; another try may. The message says why."""


class _HopelessError(_FailedError):
    """An address does not have the file: another try gives the same."""


def fetch(
    addresses: Sequence[str],
    path: Path,
    content: Content,
    *,
    progress: Progress | None = None,
    waiting: Callable[[], None] | None = None,
    timeout_s: float = _TIMEOUT_S,
    pauses_s: Sequence[float] = _PAUSES_S,
) -> Path:
    """Bring the file to `path`, unless it is there by now; `waiting` is called when another process brings it.

    Raises `FetchError`, or `UsageError` when `path` cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}.lock"), waiting):
            if not path.exists():
                _Fetching(path, content, progress, timeout_s).run(addresses, pauses_s)
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or path}: {error.strerror or error}") from error
    return path


def digest_of(path: Path, kind: str) -> str:
    """`sha256:HEX` or `git:HEX` of a file, as `kind` says."""
    with path.open("rb") as file:
        if kind == "git":
            # The name of a blob: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
            hasher = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
        else:
            hasher = hashlib.sha256()
        while data := file.read(1 << 20):
            hasher.update(data)
    return f"{kind}:{hasher.hexdigest()}"


def problem_of(path: Path, content: Content) -> str | None:
    """Why the file is not the one that is wanted; None if it is."""
    size = path.stat().st_size
    if content.size is not None and size != content.size:
        return f"it has {size} bytes, not {content.size}"
    with path.open("rb") as file:
        if content.starts and not file.read(8).startswith(content.starts):
            return "it is another kind of file"
    if content.digest is not None and digest_of(path, content.digest.partition(":")[0]) != content.digest:
        return "its content is not the published one (the hash differs)"
    return None


class _Fetching:
    """One file on its way."""

    def __init__(self, path: Path, content: Content, progress: Progress | None, timeout_s: float) -> None:
        self.path, self.content, self.progress, self.timeout_s = path, content, progress, timeout_s
        self.part = path.with_name(f"{path.name}.part")
        self.notes = path.with_name(f"{path.name}.part.json")

    def run(self, addresses: Sequence[str], pauses_s: Sequence[float]) -> None:
        left, reasons = list(addresses), dict[str, str]()
        for pause_s in pauses_s:
            if left:
                time.sleep(pause_s)
            for address in tuple(left):
                failure = self._try(address)
                if failure is None:
                    return
                reasons[address] = f"{urlsplit(address).hostname}: {failure}"
                if isinstance(failure, _HopelessError):
                    left.remove(address)
        raise FetchError("; ".join(reasons.values()))

    def _try(self, address: str) -> _FailedError | None:
        try:
            self._bring(address)
        except _FailedError as error:
            return error
        return None

    def _bring(self, address: str) -> None:
        """The whole file from one address, in as many pieces as it takes while each brings something."""
        for _ in range(_MAX_PIECES):
            before = self._size()
            try:
                fresh = self._piece(address)
            except _FailedError as error:
                if isinstance(error, _HopelessError) or self._size() <= before:
                    raise
                continue
            problem = problem_of(self.part, self.content)
            if problem is None:
                self.part.replace(self.path)
                self.notes.unlink(missing_ok=True)
                return
            self._forget()
            if fresh:
                raise _HopelessError(f"what came is not the file: {problem}")
            # What an earlier piece holds may be to blame: once more, from the start.
        raise _FailedError("the connection was lost too often")

    def _piece(self, address: str) -> bool:
        """Get the rest of the file -> whether the rest is all of it. Raises `_FailedError`."""
        have, headers = self._continuation(address)
        request = urllib.request.Request(address, headers=headers)  # noqa: S310 (checked by `_opener`)
        try:
            with _opener(address).open(request, timeout=self.timeout_s) as response:
                start, total = self._extent(response, have)
                with self.part.open("r+b" if start else "wb") as file:
                    self._note(address, response, total)  # not before what came from elsewhere is gone
                    file.seek(start)
                    self._copy(response, file, start, total, address)
                return start == 0
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refusal(error) from None
        except urllib.error.URLError as error:
            unknown = isinstance(error.reason, socket.gaierror) and error.reason.errno == socket.EAI_NONAME
            raise (_HopelessError if unknown else _FailedError)(_words(error.reason)) from None
        except (http.client.HTTPException, ConnectionError, TimeoutError, ValueError) as error:
            raise _FailedError(_words(error)) from None

    def _continuation(self, address: str) -> tuple[int, dict[str, str]]:
        """How much of the file is there that can be continued from this address, and how to ask for the rest."""
        headers = {"User-Agent": f"ofa-profiler/{ofa_profiler.__version__}", "Accept-Encoding": "identity"}
        have, notes = self._size(), self._noted()
        if have and notes.get("address") == address and isinstance(notes.get("validator"), str):
            headers["If-Range"] = notes["validator"]
        elif self.content.digest is None:
            have = 0
        if have:
            headers["Range"] = f"bytes={have}-"
        return have, headers

    def _extent(self, response: Any, have: int) -> tuple[int, int | None]:
        """Where in the file the response starts, and how large the file is."""
        if response.status == 206:
            extent = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
            if extent is None or int(extent[1]) != have:
                self._forget()
                raise _FailedError("it sent another part of the file than was asked for")
            total: int | None = int(extent[3])
            if self._noted().get("total") not in (None, total):
                self._forget()
                raise _FailedError("the file has changed there; starting anew")
        elif response.status == 200:
            have, length = 0, response.headers.get("Content-Length", "")
            total = int(length) if re.fullmatch(r"\d{1,18}", length) else None
            if total is None and self.content.digest is None:
                raise _HopelessError("it does not say how long the file is")
        else:
            raise _HopelessError(f"HTTP status {response.status}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _HopelessError("it sends the file encoded")
        self._check_size(total)
        return have, total

    def _check_size(self, size: int | None) -> None:
        if size is not None and size > self.content.max_bytes:
            raise _HopelessError(f"the file is larger than {self.content.max_bytes >> 20} MiB")
        if None not in (size, self.content.size) and size != self.content.size:
            raise _HopelessError(f"the file has {size} bytes, not {self.content.size}")

    def _copy(self, response: Any, file: IO[bytes], start: int, total: int | None, address: str) -> None:
        done, server = start, urlsplit(address).hostname or address
        try:
            while data := _read(response):
                file.write(data)
                done += len(data)
                if done > (total if total is not None else self.content.max_bytes):
                    raise _HopelessError("it sent more than the file has")
                if self.progress is not None:
                    self.progress(done, total, server)
        finally:
            file.flush()
        if total is not None and done < total:
            raise _FailedError(f"the connection was lost after {done} of {total} bytes")
        os.fsync(file.fileno())

    def _refusal(self, error: urllib.error.HTTPError) -> _FailedError:
        if error.code == 416:  # the part is as long as the file, or longer: it is of another one
            self._forget()
            return _FailedError("it does not have the rest of the file")
        message = _words(f"HTTP status {error.code} {error.reason}")
        again = error.code >= 500 or error.code in (408, 425, 429)
        return _FailedError(message) if again else _HopelessError(message)

    # --- what is there so far -------------------------------------------------------------------------

    def _size(self) -> int:
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0

    def _note(self, address: str, response: Any, total: int | None) -> None:
        validator = response.headers.get("ETag")
        if validator is None or validator.startswith("W/"):  # a weak one stands for similar content, not for equal
            validator = response.headers.get("Last-Modified")
        text = json.dumps({"address": address, "validator": validator, "total": total})
        self.notes.write_text(text, encoding="utf-8")

    def _noted(self) -> dict[str, Any]:
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, to encrypted addresses only."""

    max_redirections = _MAX_REDIRECTS
    max_repeats = 2

    def __init__(self, *, plain: bool) -> None:
        self.plain = plain

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith(("https://", "http://") if self.plain else "https://"):
            raise _HopelessError(f"it leads to {newurl:.80}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(address: str) -> urllib.request.OpenerDirector:
    """Of `address`; a plain one may only lead on to plain ones if it is plain itself, which the user has named."""
    scheme = urlsplit(address).scheme
    if scheme not in ("https", "http"):
        raise _HopelessError(f"{address:.80} is no https address")
    return urllib.request.build_opener(_Redirects(plain=scheme == "http"))


def _read(response: Any) -> bytes:
    """What has come. A failure to read it is the address's, one to write it is not."""
    try:
        return bytes(response.read1(_CHUNK))
    except OSError as error:
        raise _FailedError(_words(error)) from None


def _words(reason: object) -> str:
    """One line about a failure."""
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    words = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return " ".join(str(words).split())[:160]
