"""The downloader. It downloads one file over HTTP from several mirrors, resumes after interruptions, and is atomic.

`NAME.part` holds the data so far, and `NAME.part.json` its source. A later call resumes there, also after a kill. Two
pieces are only combined if they belong together: either the server confirms that the file is unchanged (If-Range), or
the hash of the file is known, and then any mirror may send the rest. One process downloads at a time; others wait for
the lock of the file and then find it.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import math
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from ofa_profiler.base.locks import locked
from ofa_profiler.base.progress import Progress, Reporter, report
from ofa_profiler.base.retry import retry
from ofa_profiler.base.version import __version__
from ofa_profiler.errors import OfaError, TransientError, UsageError

#: The phase in the progress of a download.
_PHASE = "download (KiB)"
_CHUNK = 1 << 16
#: Pauses between the rounds over all mirrors.
_WAITS_S = (1.0, 4.0)
#: A mirror that sends something is asked for the rest at once, but not more often than this.
_MAX_PIECES = 100
#: How long a server may send nothing.
_TIMEOUT_S = 30.0
_MAX_REDIRECTS = 5


@dataclass(frozen=True)
class Content:
    """What is known of a file before it is downloaded.

    `digest` is `sha256:HEX`, or `git:HEX` for the hash of its content in git; None if no hash is published. `starts`
    are the possible first bytes, which an error page does not have.
    """

    digest: str | None = None
    size: int | None = None
    max_bytes: int = 512 << 20
    starts: tuple[bytes, ...] = ()


class FetchError(UsageError):
    """No address provided the file. The message contains the reason of each."""


class _TransientFetchError(FetchError, TransientError):
    """No address provided the file, but another attempt may succeed."""


class _Interrupted(TransientError):
    """An address did not provide the file, but another attempt may succeed. The message has the reason."""


class _Unavailable(OfaError):
    """An address does not have the file, so another attempt is useless. The message has the reason."""


def fetch(
    addresses: Sequence[str],
    path: Path,
    content: Content,
    *,
    replace_damaged: bool = False,
    progress: Reporter | None = None,
    timeout_s: float = _TIMEOUT_S,
    waits_s: Sequence[float] = _WAITS_S,
) -> Path:
    """Download a file to `path`, unless it exists, and return `path`.

    An existing file is only checked with `replace_damaged`. `progress` counts KiB; its `words` name the server.
    Raises `FetchError`, or `UsageError` if `path` cannot be written.
    """

    def waiting() -> None:
        if progress is not None:
            progress(Progress(_PHASE, 0, None, waiting=f"another process is downloading {path.name}"))

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}.lock"), waiting):
            if not path.exists() or (replace_damaged and problem_of(path, content)):
                _Download(path, content, progress, timeout_s).run(addresses, waits_s)
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or path}: {error.strerror or error}") from error
    return path


def digest_of(path: Path, kind: str) -> str:
    """Return `sha256:HEX` or `git:HEX` of a file; `kind` is `sha256` or `git`."""
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
    """Return why the file differs from `content`; None if it does not."""
    size = path.stat().st_size
    if content.size is not None and size != content.size:
        return f"it has {size} bytes, not {content.size}"
    with path.open("rb") as file:
        if content.starts and not file.read(8).startswith(content.starts):
            return "it is another kind of file"
    if content.digest is not None and digest_of(path, content.digest.partition(":")[0]) != content.digest:
        return "its content is not the published one (the hash differs)"
    return None


class _Download:
    """The download of one file."""

    def __init__(self, path: Path, content: Content, progress: Reporter | None, timeout_s: float) -> None:
        self.path, self.content, self.progress, self.timeout_s = path, content, progress, timeout_s
        self.part = path.with_name(f"{path.name}.part")
        self.notes = path.with_name(f"{path.name}.part.json")

    def run(self, addresses: Sequence[str], waits_s: Sequence[float]) -> None:
        left, reasons = list(addresses), dict[str, str]()

        def try_each() -> None:
            for address in tuple(left):
                try:
                    return self._from(address)
                except (_Interrupted, _Unavailable) as error:  # noqa: PERF203 (a network is slower)
                    reasons[address] = f"{urlsplit(address).hostname}: {error}"
                    if isinstance(error, _Unavailable):
                        left.remove(address)
            raise (_TransientFetchError if left else FetchError)("; ".join(reasons.values()))

        retry(try_each, waits_s)

    def _from(self, address: str) -> None:
        """Download the file from one address. Raises `_Interrupted` or `_Unavailable`."""
        for first in (True, False):
            in_one_piece = self._all_pieces(address)
            problem = problem_of(self.part, self.content)
            if problem is None:
                self.part.replace(self.path)
                self.notes.unlink(missing_ok=True)
                return
            self._discard()
            if in_one_piece or not first:
                raise _Unavailable(f"the server sent another file: {problem}")
            # An earlier piece may be wrong, so try once more from the start.

    def _all_pieces(self, address: str) -> bool:
        """Get the rest of the file, and return whether the whole file came in one piece."""
        start = self._size()

        def position(_error: TransientError) -> float:
            return size if (size := self._size()) > start else -math.inf

        return retry(lambda: self._piece(address), (0.0,), position=position, max_attempts=_MAX_PIECES)

    def _piece(self, address: str) -> bool:
        """Get the rest of the file, and return whether it is the whole file. Raises `_Interrupted`, `_Unavailable`."""
        have, headers = self._continuation(address)
        request = urllib.request.Request(address, headers=headers)  # noqa: S310 (checked by `_opener`)
        try:
            with _opener(address).open(request, timeout=self.timeout_s) as response:
                start, total = self._extent(response, have)
                with self.part.open("r+b" if start else "wb") as file:
                    self._note(address, response, total)  # only after data from another address is discarded
                    file.seek(start)
                    self._copy(response, file, start, total, address)
                return start == 0
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refusal(error) from None
        except urllib.error.URLError as error:
            unknown = isinstance(error.reason, socket.gaierror) and error.reason.errno == socket.EAI_NONAME
            raise (_Unavailable if unknown else _Interrupted)(_words(error.reason)) from None
        except (http.client.HTTPException, ConnectionError, TimeoutError, ValueError) as error:
            raise _Interrupted(_words(error)) from None

    def _continuation(self, address: str) -> tuple[int, dict[str, str]]:
        """Return how many bytes of the file can be kept with this address, and the headers of the request."""
        headers = {"User-Agent": f"ofa-profiler/{__version__}", "Accept-Encoding": "identity"}
        have, notes = self._size(), self._noted()
        if have and notes.get("address") == address and isinstance(notes.get("validator"), str):
            headers["If-Range"] = notes["validator"]
        elif self.content.digest is None:
            have = 0
        if have:
            headers["Range"] = f"bytes={have}-"
        return have, headers

    def _extent(self, response: Any, have: int) -> tuple[int, int | None]:
        """Return where in the file the response starts, and the size of the file."""
        if response.status == 206:
            extent = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
            if extent is None or int(extent[1]) != have:
                self._discard()
                raise _Interrupted("the server sent another part of the file than requested")
            total: int | None = int(extent[3])
            if self._noted().get("total") not in (None, total):
                self._discard()
                raise _Interrupted("the file has changed on the server; starting again")
        elif response.status == 200:
            have, length = 0, response.headers.get("Content-Length", "")
            total = int(length) if re.fullmatch(r"\d{1,18}", length) else None
            if total is None and self.content.digest is None:
                raise _Unavailable("the server does not report the size of the file")
        else:
            raise _Unavailable(f"HTTP status {response.status}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _Unavailable("the server sends the file encoded")
        self._check_size(total)
        return have, total

    def _check_size(self, size: int | None) -> None:
        if size is not None and size > self.content.max_bytes:
            raise _Unavailable(f"the file is larger than {self.content.max_bytes >> 20} MiB")
        if None not in (size, self.content.size) and size != self.content.size:
            raise _Unavailable(f"the file has {size} bytes, not {self.content.size}")

    def _copy(self, response: Any, file: IO[bytes], start: int, total: int | None, address: str) -> None:
        done, words = start, f"from {urlsplit(address).hostname or address}"
        try:
            while data := _read(response):
                file.write(data)
                done += len(data)
                if done > (total if total is not None else self.content.max_bytes):
                    raise _Unavailable("the server sent more than the size of the file")
                report(self.progress, _PHASE, done >> 10, None if total is None else total >> 10, words=words)
        finally:
            file.flush()
        if total is not None and done < total:
            raise _Interrupted(f"the connection was lost after {done} of {total} bytes")
        os.fsync(file.fileno())

    def _refusal(self, error: urllib.error.HTTPError) -> _Interrupted | _Unavailable:
        if error.code == 416:  # the part is as long as the file, or longer, so it belongs to another file
            self._discard()
            return _Interrupted("the server does not have the rest of the file")
        message = _words(f"HTTP status {error.code} {error.reason}")
        again = error.code >= 500 or error.code in (408, 425, 429)
        return _Interrupted(message) if again else _Unavailable(message)

    # --- the data so far ------------------------------------------------------------------------------

    def _size(self) -> int:
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0

    def _note(self, address: str, response: Any, total: int | None) -> None:
        validator = response.headers.get("ETag")
        if validator is None or validator.startswith("W/"):  # a weak one only means similar content
            validator = response.headers.get("Last-Modified")
        text = json.dumps({"address": address, "validator": validator, "total": total})
        self.notes.write_text(text, encoding="utf-8")

    def _noted(self) -> dict[str, Any]:
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, to encrypted addresses only, unless `plain`."""

    max_redirections = _MAX_REDIRECTS
    max_repeats = 2

    def __init__(self, *, plain: bool) -> None:
        self.plain = plain

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith(("https://", "http://") if self.plain else "https://"):
            raise _Unavailable(f"it redirects to {newurl:.80}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(address: str) -> urllib.request.OpenerDirector:
    """Return an opener for `address`. Only a plain address, which the user has named, may redirect to a plain one."""
    scheme = urlsplit(address).scheme
    if scheme not in ("https", "http"):
        raise _Unavailable(f"{address:.80} is not an https address")
    return urllib.request.build_opener(_Redirects(plain=scheme == "http"))


def _read(response: Any) -> bytes:
    """Read what has arrived. Only a failure to read is the fault of the address, not a failure to write."""
    try:
        return bytes(response.read1(_CHUNK))
    except OSError as error:
        raise _Interrupted(_words(error)) from None


def _words(reason: object) -> str:
    """Return a failure as one line."""
    if isinstance(reason, TimeoutError):
        return "timeout"
    words = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return " ".join(str(words).split())[:160]
