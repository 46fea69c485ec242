"""The host's side of `device_agents/store.py`: upload what a device lacks, in one compressed stream.

An upload is one question and one answer, however many models there are.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import device_agents
from ofa_profiler.devices.remote.shell import Shell, one_line
from ofa_profiler.devices.remote.wheels import Wheels
from ofa_profiler.errors import DeviceError, TransientDeviceError, UploadInterrupted
from ofa_profiler.protocol.lines import parse_line

#: The exit code for damaged data, after which another attempt may succeed (`EX_TEMPFAIL` of sysexits.h).
_DAMAGED = 75
#: Runs the source of the store, whose length and SHA-256 are the arguments, and leaves the rest of stdin to it. Python
#: searches the working directory for modules first. That is a home folder here, which may contain a `queue.py`.
_BOOT = (
    "import sys;sys.path=[p for p in sys.path if p];"
    "v=sys.version_info[:2];v>=(3,7) or sys.exit('Python 3.7 or newer is needed, this is %d.%d'%v);"
    "import hashlib;b=sys.stdin.buffer.read(int(sys.argv[1]));"
    f"hashlib.sha256(b).hexdigest()==sys.argv[2] or sys.exit({_DAMAGED});"
    "exec(compile(b,'store.py','exec'))"
)
#: Text shrinks at any level, models hardly at all. A higher level would keep the device waiting.
_LEVEL = 1
_NOT_FOUND = 127
#: Exit codes of a shell from here on stand for signals.
_SIGNALS = 128
#: What the device says if its folder cannot be written.
_UNWRITABLE = re.compile("[Rr]ead-only|cannot write|disk is full|[Pp]ermission denied")
_ANNOUNCED_BYTES = 5_000_000
#: Larger files are sent in pieces of this size. After an interruption only the interrupted piece is sent again.
PIECE_BYTES = 1 << 18


@dataclass(frozen=True)
class FileSet:
    """What a device should have: content by path, relative to the root."""

    files: Mapping[str, Path | bytes]
    links: Mapping[str, str] = field(default_factory=dict)
    #: Wheels by the folder into which they are unpacked.
    runtimes: Mapping[str, Wheels] = field(default_factory=dict)
    #: Path and content of the results so far. A device that has these and further results keeps its own.
    results: tuple[str, bytes] | None = None


@dataclass(frozen=True)
class Store:
    """The private folder `root` of a device, managed by `python` (a command) there."""

    shell: Shell
    python: Sequence[str]
    root: str
    #: Receives a line for the user before a long upload.
    tell: Callable[[str], None] | None = None
    #: The device confirms each batch of this size before the next is sent. An interruption loses what is in transit,
    #: which can be as much as both ends buffer.
    batch_bytes: float = math.inf
    #: What the user can do if the folder cannot be written.
    folder_hint: str = ""

    def prepare(self) -> dict[str, Any]:
        """Create the folder, and return what the device says about its Python."""
        return self._ask({"do": "prepare"})

    def upload(self, wanted: FileSet) -> int:
        """Make sure that the device has everything in `wanted`, and return how many files were sent."""
        folders = {path: wheels.contents for path, wheels in wanted.runtimes.items()}
        of_wheels = {path: file for wheels in wanted.runtimes.values() for path, file in wheels.files.items()}
        known = {**of_wheels, **wanted.files}
        request: dict[str, Any] = {
            "do": "missing",
            "files": {path: _sha256(content) for path, content in known.items()},
            "folders": folders,
            "links": dict(wanted.links),
        }
        if wanted.results is not None:
            path, lines = wanted.results
            request["results"] = {"path": path, "size": len(lines), "sha256": _sha256(lines)}
        answer = self._ask(request)
        runtimes = {path: wanted.runtimes[path] for path in _listed(answer, "folders", folders)}
        needed = {path for wheels in runtimes.values() for path in wheels.files}
        files = {
            path: known[path] for path in _listed(answer, "files", known) if path in needed or path in wanted.files
        }
        if wanted.results is not None and answer.get("results") is not True:
            files[wanted.results[0]] = wanted.results[1]
        if files or runtimes or _listed(answer, "links", wanted.links):
            self._send(files, runtimes, wanted.links)
        return len(files)

    def _send(
        self, files: Mapping[str, Path | bytes], runtimes: Mapping[str, Wheels], links: Mapping[str, str]
    ) -> None:
        large = {path: _SplitFile.of(content) for path, content in files.items() if _size(content) > PIECE_BYTES}
        pieces = {path: piece for file in large.values() for path, piece in file.pieces.items()}
        if pieces:
            asked = {"do": "missing", "files": {path: _sha256(piece) for path, piece in pieces.items()}, "folders": {}}
            pieces = {path: pieces[path] for path in _listed(self._ask(asked), "files", pieces)}
        sent: dict[str, _Content] = {path: content for path, content in files.items() if path not in large}
        sent.update(pieces)
        remaining = sum(map(_size, sent.values()))
        last = {
            "joined": {path: [_sha256(file.content), file.order] for path, file in large.items()},
            "folders": {path: wheels.contents for path, wheels in runtimes.items()},
            "links": dict(links),
        }
        unpacked = PIECE_BYTES * bool(large) + sum(wheels.size for wheels in runtimes.values())
        if self.tell is not None and remaining > _ANNOUNCED_BYTES:
            of_wheels = {path for wheels in runtimes.values() for path in wheels.files}
            what = ", ".join(
                [*(wheels.versions for wheels in runtimes.values()), f"{len(set(files) - of_wheels)} files"]
            )
            self.tell(f"{self.shell.spec}: sending {remaining / 1e6:.0f} MB, which the device keeps ({what})")
        *batches, rest = _batches(sent, self.batch_bytes)
        for batch in batches:
            self._send_batch(batch, {"folders": {}, "links": {}, "size": remaining + unpacked}, remaining)
            remaining -= sum(map(_size, batch.values()))
        answer = self._send_batch(rest, {**last, "size": remaining + unpacked}, remaining)
        if answer.get("again") is True:
            raise TransientDeviceError(f"{self.shell.spec}: another host uploads the same files at the same time")

    def _send_batch(
        self, contents: Mapping[str, _Content], request: Mapping[str, Any], remaining: int
    ) -> dict[str, Any]:
        files = {path: _sha256(content) for path, content in contents.items()}
        try:
            return self._ask({"do": "receive", "files": files, **request}, _packed(contents))
        except TransientDeviceError as error:
            raise UploadInterrupted(str(error), remaining) from error

    def _ask(self, request: Mapping[str, Any], data: Iterable[bytes] = ()) -> dict[str, Any]:
        source = (Path(device_agents.__path__[0]) / "store.py").read_bytes()
        words = json.dumps({**request, "root": self.root}).encode()
        stream = ChunkReader(chain([source, _sha256(words).encode(), b" ", words, b"\n"], data))
        done = self.shell.run([*self.python, "-c", _BOOT, str(len(source)), _sha256(source)], stream)
        spec = self.shell.spec
        answers = [record for record in map(_record, done.stdout.splitlines()) if record.get("type") == "store"]
        if not answers:
            if done.exit_code == _NOT_FOUND:
                raise DeviceError(f"{spec}: the device has no {self.python[0]}; the agent needs Python 3.7 or newer")
            if done.exit_code == _DAMAGED:
                raise TransientDeviceError(f"{spec}: data was damaged during the transfer")
            # If it was killed, by a signal or with its connection, another attempt may succeed.
            final = 0 < done.exit_code < _SIGNALS
            raise (DeviceError if final else TransientDeviceError)(
                f"{spec}: python3 on the device ended with code {done.exit_code}: {one_line(done.stderr)}"
            )
        if "error" in answers[-1]:
            again = answers[-1].get("again") is True
            why = one_line(str(answers[-1]["error"]))
            hint = self.folder_hint if _UNWRITABLE.search(why) else ""
            raise (TransientDeviceError if again else DeviceError)(f"{spec}: {why}{hint}")
        return answers[-1]


@dataclass(frozen=True)
class _Piece:
    """A piece of a large file, read when it is sent."""

    whole: Path | bytes
    start: int

    def read(self) -> bytes:
        if isinstance(self.whole, bytes):
            return self.whole[self.start : self.start + PIECE_BYTES]
        with self.whole.open("rb") as file:
            file.seek(self.start)
            return file.read(PIECE_BYTES)


_Content = Path | bytes | _Piece


@dataclass(frozen=True)
class _SplitFile:
    """A file that is sent in pieces. A piece is named by its hash, and can occur twice."""

    content: Path | bytes
    order: Sequence[str]
    pieces: Mapping[str, _Piece]

    @classmethod
    def of(cls, content: Path | bytes) -> _SplitFile:
        pieces = [_Piece(content, start) for start in range(0, _size(content), PIECE_BYTES)]
        order = [f"pieces/{_sha256(piece)}" for piece in pieces]
        return cls(content, order, dict(zip(order, pieces, strict=True)))


class ChunkReader:
    """Reads chunks of bytes, one after the other, like a file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        size = len(self._rest) if size < 0 else size
        data, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return data


def _batches(contents: Mapping[str, _Content], batch_bytes: float) -> list[dict[str, _Content]]:
    """Split `contents` into batches of about `batch_bytes`, in order; at least one batch."""
    batches: list[dict[str, _Content]] = [{}]
    size = 0
    for path, content in contents.items():
        if batches[-1] and size + _size(content) > batch_bytes:
            batches.append({})
            size = 0
        batches[-1][path] = content
        size += _size(content)
    return batches


def _packed(files: Mapping[str, _Content]) -> Iterator[bytes]:
    """Yield a compressed tar while it is sent: one gzip member per file."""
    for path, content in files.items():
        data = _bytes(content)
        member = tarfile.TarInfo(path)
        member.size = len(data)
        header = member.tobuf(tarfile.PAX_FORMAT)
        padding = bytes(-len(data) % tarfile.BLOCKSIZE)
        # Large files are compressed already (wheels), or weights.
        level = 0 if isinstance(content, _Piece) or path.endswith(".whl") else _LEVEL
        yield gzip.compress(b"".join((header, data, padding)), level, mtime=0)
    yield gzip.compress(bytes(2 * tarfile.BLOCKSIZE), mtime=0)


def _size(content: _Content) -> int:
    if isinstance(content, Path):
        return content.stat().st_size
    return len(content) if isinstance(content, bytes) else min(PIECE_BYTES, _size(content.whole) - content.start)


def _bytes(content: _Content) -> bytes:
    if isinstance(content, bytes):
        return content
    return content.read_bytes() if isinstance(content, Path) else content.read()


def _sha256(content: _Content) -> str:
    # A file named by its hash was checked when it got that name, and is checked again on the device.
    if isinstance(content, Path) and re.fullmatch("[0-9a-f]{64}", content.stem):
        return content.stem
    return hashlib.sha256(_bytes(content)).hexdigest()


def _record(line: bytes) -> dict[str, Any]:
    try:
        return parse_line(line)
    except ValueError:
        return {}


def _listed(answer: Mapping[str, Any], name: str, known: Mapping[str, Any]) -> list[str]:
    """Return the entries of a list in an answer that are in `known`."""
    listed = answer.get(name)
    if not isinstance(listed, list):
        raise DeviceError(f"the device's answer has no list {name!r}")
    return [path for path in listed if isinstance(path, str) and path in known]
