"""The host's side of `device_agents/store.py`: bring to a device what it lacks, in one compressed stream.

However many models there are, it is one question and one answer.
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
from ofa_profiler.errors import DeviceError, SendingCutOff, TransientDeviceError
from ofa_profiler.protocol.replay import Record, parse_record

#: The exit code for what may work the next time (`EX_TEMPFAIL` of sysexits.h).
_DAMAGED = 75
#: Runs the store's source, whose length and SHA-256 are the arguments, and leaves the rest of stdin to it. Python looks
#: for modules in the working directory first, which is somebody's home here, with a `queue.py` in it perhaps.
_BOOT = (
    "import sys;sys.path=[p for p in sys.path if p];"
    "v=sys.version_info[:2];v>=(3,7) or sys.exit('Python 3.7 or newer is needed, this is %d.%d'%v);"
    "import hashlib;b=sys.stdin.buffer.read(int(sys.argv[1]));"
    f"hashlib.sha256(b).hexdigest()==sys.argv[2] or sys.exit({_DAMAGED});"
    "exec(compile(b,'store.py','exec'))"
)
#: Models hardly shrink; text does at any level. A higher one would keep the device waiting.
_LEVEL = 1
_NOT_FOUND = 127
#: Exit codes from here on stand for signals, in shells.
_SIGNALS = 128
_WORTH_TELLING = 5_000_000
#: Files above this size come in pieces of it: after a cut only the piece that was cut comes again.
PIECE = 1 << 18


@dataclass(frozen=True)
class Parcel:
    """What a device should have: content by its path below the root."""

    files: Mapping[str, Path | bytes]
    links: Mapping[str, str] = field(default_factory=dict)
    #: Wheels by the folder that they are unpacked into.
    runtimes: Mapping[str, Wheels] = field(default_factory=dict)
    #: Path and lines of the results so far; a device that has these, and more, keeps its own.
    results: tuple[str, bytes] | None = None


@dataclass(frozen=True)
class Store:
    """The private folder `root` of a device, kept by a `python` (its words) there."""

    shell: Shell
    python: Sequence[str]
    root: str
    #: Takes a line for people when something takes a while.
    tell: Callable[[str], None] | None = None
    #: So many bytes are sent before it is asked whether they have arrived. A cut takes away what is on its way, and
    #: that is whatever the two ends hold in memory.
    at_once: float = math.inf

    def hello(self) -> Record:
        """Make the folder -> what the device says about its Python."""
        return self._ask({"do": "hello"})

    def bring(self, parcel: Parcel) -> int:
        """Make sure that the device has all of `parcel` -> how many files were sent."""
        folders = {path: wheels.contents for path, wheels in parcel.runtimes.items()}
        of_wheels = {path: file for wheels in parcel.runtimes.values() for path, file in wheels.files.items()}
        known = {**of_wheels, **parcel.files}
        request: dict[str, Any] = {
            "do": "missing",
            "files": {path: _sha256(content) for path, content in known.items()},
            "folders": folders,
            "links": dict(parcel.links),
        }
        if parcel.results is not None:
            path, lines = parcel.results
            request["results"] = {"path": path, "size": len(lines), "sha256": _sha256(lines)}
        answer = self._ask(request)
        runtimes = {path: parcel.runtimes[path] for path in _among(answer, "folders", folders)}
        wanted = {path for wheels in runtimes.values() for path in wheels.files}
        files = {path: known[path] for path in _among(answer, "files", known) if path in wanted or path in parcel.files}
        if parcel.results is not None and answer.get("results") is not True:
            files[parcel.results[0]] = parcel.results[1]
        if files or runtimes or _among(answer, "links", parcel.links):
            self._send(files, runtimes, parcel.links)
        return len(files)

    def _send(
        self, files: Mapping[str, Path | bytes], runtimes: Mapping[str, Wheels], links: Mapping[str, str]
    ) -> None:
        large = {path: _Large.of(content) for path, content in files.items() if _size(content) > PIECE}
        pieces = {path: piece for file in large.values() for path, piece in file.pieces.items()}
        if pieces:
            asked = {"do": "missing", "files": {path: _sha256(piece) for path, piece in pieces.items()}, "folders": {}}
            pieces = {path: pieces[path] for path in _among(self._ask(asked), "files", pieces)}
        sent: dict[str, _Content] = {path: content for path, content in files.items() if path not in large}
        sent.update(pieces)
        size = sum(map(_size, sent.values()))
        last = {
            "joined": {path: [_sha256(file.content), file.order] for path, file in large.items()},
            "folders": {path: wheels.contents for path, wheels in runtimes.items()},
            "links": dict(links),
        }
        beside = PIECE * bool(large) + sum(wheels.size for wheels in runtimes.values())
        if self.tell is not None and size > _WORTH_TELLING:
            of_wheels = {path for wheels in runtimes.values() for path in wheels.files}
            what = ", ".join(
                [*(wheels.versions for wheels in runtimes.values()), f"{len(set(files) - of_wheels)} files"]
            )
            self.tell(f"{self.shell.spec}: sending {size / 1e6:.0f} MB, which the device keeps ({what})")
        *portions, rest = _portions(sent, self.at_once)
        for portion in portions:
            self._deliver(portion, {"folders": {}, "links": {}, "size": size + beside}, lacking=size)
            size -= sum(map(_size, portion.values()))
        answer = self._deliver(rest, {**last, "size": size + beside}, lacking=size)
        if answer.get("again") is True:
            raise TransientDeviceError(f"{self.shell.spec}: another run brings the same")

    def _deliver(self, contents: Mapping[str, _Content], request: Mapping[str, Any], *, lacking: int) -> Record:
        files = {path: _sha256(content) for path, content in contents.items()}
        try:
            return self._ask({"do": "receive", "files": files, **request}, _packed(contents))
        except TransientDeviceError as error:
            raise SendingCutOff(str(error), lacking) from error

    def _ask(self, request: Mapping[str, Any], data: Iterable[bytes] = ()) -> Record:
        source = (Path(device_agents.__path__[0]) / "store.py").read_bytes()
        words = json.dumps({**request, "root": self.root}).encode()
        stream = Pieces(chain([source, _sha256(words).encode(), b" ", words, b"\n"], data))
        done = self.shell.run([*self.python, "-c", _BOOT, str(len(source)), _sha256(source)], stream)
        spec = self.shell.spec
        answers = [record for record in map(_record, done.stdout.splitlines()) if record.get("type") == "store"]
        if not answers:
            if done.exit_code == _NOT_FOUND:
                raise DeviceError(f"{spec}: there is no {self.python[0]} on the device; the agent needs Python 3.7")
            if done.exit_code == _DAMAGED:
                raise TransientDeviceError(f"{spec}: what was sent was damaged on the way")
            # One that was killed, by a signal or with its connection, may do better the next time.
            final = 0 < done.exit_code < _SIGNALS
            raise (DeviceError if final else TransientDeviceError)(
                f"{spec}: python3 on the device ended with code {done.exit_code}: {one_line(done.stderr)}"
            )
        if "error" in answers[-1]:
            again = answers[-1].get("again") is True
            raise (TransientDeviceError if again else DeviceError)(f"{spec}: {one_line(str(answers[-1]['error']))}")
        return answers[-1]


@dataclass(frozen=True)
class _Piece:
    """A part of a large file, read when it is needed."""

    whole: Path | bytes
    start: int

    def read(self) -> bytes:
        if isinstance(self.whole, bytes):
            return self.whole[self.start : self.start + PIECE]
        with self.whole.open("rb") as file:
            file.seek(self.start)
            return file.read(PIECE)


_Content = Path | bytes | _Piece


@dataclass(frozen=True)
class _Large:
    """A file that comes in pieces, which are named by their hashes: one can occur twice."""

    content: Path | bytes
    order: Sequence[str]
    pieces: Mapping[str, _Piece]

    @classmethod
    def of(cls, content: Path | bytes) -> _Large:
        pieces = [_Piece(content, start) for start in range(0, _size(content), PIECE)]
        order = [f"pieces/{_sha256(piece)}" for piece in pieces]
        return cls(content, order, dict(zip(order, pieces, strict=True)))


class Pieces:
    """Pieces of bytes, one after the other, to be read like a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        size = len(self._rest) if size < 0 else size
        data, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return data


def _portions(contents: Mapping[str, _Content], at_once: float) -> list[dict[str, _Content]]:
    """`contents` in portions of about `at_once` bytes, in order; at least one."""
    portions: list[dict[str, _Content]] = [{}]
    size = 0
    for path, content in contents.items():
        if portions[-1] and size + _size(content) > at_once:
            portions.append({})
            size = 0
        portions[-1][path] = content
        size += _size(content)
    return portions


def _packed(files: Mapping[str, _Content]) -> Iterator[bytes]:
    """A compressed tar, made while it is sent: one member of gzip per file."""
    for path, content in files.items():
        data = _bytes(content)
        member = tarfile.TarInfo(path)
        member.size = len(data)
        header = member.tobuf(tarfile.PAX_FORMAT)
        padding = bytes(-len(data) % tarfile.BLOCKSIZE)
        # What is large is compressed already (wheels), or weights.
        level = 0 if isinstance(content, _Piece) or path.endswith(".whl") else _LEVEL
        yield gzip.compress(b"".join((header, data, padding)), level, mtime=0)
    yield gzip.compress(bytes(2 * tarfile.BLOCKSIZE), mtime=0)


def _size(content: _Content) -> int:
    if isinstance(content, Path):
        return content.stat().st_size
    return len(content) if isinstance(content, bytes) else min(PIECE, _size(content.whole) - content.start)


def _bytes(content: _Content) -> bytes:
    if isinstance(content, bytes):
        return content
    return content.read_bytes() if isinstance(content, Path) else content.read()


def _sha256(content: _Content) -> str:
    # A file that carries its hash as its name was checked when it was named, and is checked on the device.
    if isinstance(content, Path) and re.fullmatch("[0-9a-f]{64}", content.stem):
        return content.stem
    return hashlib.sha256(_bytes(content)).hexdigest()


def _record(line: bytes) -> Record:
    try:
        return parse_record(line)
    except ValueError:
        return {}


def _among(answer: Record, name: str, known: Mapping[str, Any]) -> list[str]:
    """The entries of a list in an answer, only those that we know."""
    listed = answer.get(name)
    if not isinstance(listed, list):
        raise DeviceError(f"the device's answer has no list {name!r}")
    return [path for path in listed if isinstance(path, str) and path in known]
