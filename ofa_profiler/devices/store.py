"""The host's side of `device_agents/store.py`: bring to a device what it lacks, in one compressed stream.

However many models there are, it is one question and one answer.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import device_agents
from ofa_profiler.devices.provision import Wheels
from ofa_profiler.devices.shell import Readable, Shell, one_line
from ofa_profiler.errors import DeviceError, TransientDeviceError, UsageError
from ofa_profiler.journal import Record, parse_record

#: Runs the store's source, whose length is the first argument, and leaves the rest of stdin to it.
_BOOT = (
    "import sys;v=sys.version_info[:2];v>=(3,7) or sys.exit('Python 3.7 or newer is needed, this is %d.%d'%v);"
    "exec(compile(sys.stdin.buffer.read(int(sys.argv[1])),'store.py','exec'))"
)
#: Models hardly shrink; text does at any level. A higher one would keep the device waiting.
_LEVEL = 1
_NOT_FOUND = 127
_WORTH_TELLING = 5_000_000


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

    def hello(self) -> Record:
        """Make the folder -> what the device says about its Python."""
        return self._ask({"do": "hello"})

    def bring(self, parcel: Parcel) -> int:
        """Make sure that the device has all of `parcel` -> the bytes that were sent."""
        hashes = {path: _sha256(content) for path, content in parcel.files.items()}
        sizes = {path: wheels.sizes() for path, wheels in parcel.runtimes.items()}
        request: dict[str, Any] = {"do": "missing", "files": hashes, "folders": sizes}
        if parcel.results is not None:
            path, lines = parcel.results
            request["results"] = {"path": path, "size": len(lines), "sha256": _sha256(lines)}
        answer = self._ask(request)
        files = {path: parcel.files[path] for path in _among(answer, "files", parcel.files)}
        runtimes = {path: parcel.runtimes[path] for path in _among(answer, "folders", parcel.runtimes)}
        if parcel.results is not None and answer.get("results") is not True:
            files[parcel.results[0]] = parcel.results[1]
        if not files and not runtimes:
            return 0
        return self._send(files, runtimes, parcel.links)

    def _send(self, files: Mapping[str, Path | bytes], runtimes: Mapping[str, Wheels], links: Mapping[str, str]) -> int:
        contents = {path: dict(wheels.files()) for path, wheels in runtimes.items()}
        request: dict[str, Any] = {
            "do": "receive",
            "files": {path: _sha256(content) for path, content in files.items()},
            "folders": {path: {name: _sha256(data) for name, data in tree.items()} for path, tree in contents.items()},
            "links": dict(links),
        }
        unpacked = {f"{path}/{name}": data for path, tree in contents.items() for name, data in tree.items()}
        with tempfile.TemporaryFile() as packed:
            try:
                request["size"] = _pack({**files, **unpacked}, packed)
            except OSError as error:
                folder = tempfile.gettempdir()
                raise UsageError(f"cannot pack into {folder} what the device lacks: {error.strerror}") from error
            size = packed.tell()
            packed.seek(0)
            if self.tell is not None and size > _WORTH_TELLING:
                what = ", ".join([*(wheels.versions for wheels in runtimes.values()), f"{len(files)} files"])
                self.tell(f"{self.shell.spec}: sending {size / 1e6:.0f} MB, which the device keeps ({what})")
            self._ask(request, packed)
        return size

    def _ask(self, request: Mapping[str, Any], data: Readable | None = None) -> Record:
        source = (Path(device_agents.__path__[0]) / "store.py").read_bytes()
        words = json.dumps({**request, "root": self.root}).encode() + b"\n"
        head = io.BytesIO(source + words)
        done = self.shell.run([*self.python, "-c", _BOOT, str(len(source))], _Joined(head, data) if data else head)
        spec = self.shell.spec
        answers = [record for record in map(_record, done.stdout.splitlines()) if record.get("type") == "store"]
        if not answers:
            if done.exit_code == _NOT_FOUND:
                raise DeviceError(f"{spec}: there is no {self.python[0]} on the device; the agent needs Python 3.7")
            raise TransientDeviceError(
                f"{spec}: python3 on the device ended with code {done.exit_code}: {one_line(done.stderr)}"
            )
        if "error" in answers[-1]:
            raise DeviceError(f"{spec}: {one_line(str(answers[-1]['error']))}")
        return answers[-1]


class _Joined:
    """Two files, one after the other, to be read."""

    def __init__(self, *parts: Readable) -> None:
        self._parts = list(parts)

    def read(self, size: int = -1, /) -> bytes:
        data = b""
        while self._parts and not (data := self._parts[0].read(size)):
            self._parts.pop(0)
        return data


def _pack(files: Mapping[str, Path | bytes], target: IO[bytes]) -> int:
    """Write a compressed tar -> the size of what is in it."""
    total = 0
    with (
        gzip.GzipFile(fileobj=target, mode="wb", compresslevel=_LEVEL, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path, content in files.items():
            data = _bytes(content)
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
            total += len(data)
    return total


def _bytes(content: Path | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _sha256(content: Path | bytes) -> str:
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
