"""The runtime for a board: this machine downloads the wheels that fit the board's Python.

The board describes its Python (`device_agents/store.py`), and pip finds the newest release with a wheel for it. The
board needs no internet. The wheels stay in the cache of this machine, so the next board of this kind needs no download.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from ofa_profiler.base.cache_dir import default_cache_dir
from ofa_profiler.base.files import remove, write_text
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.runtimes import runtimes

_OLDEST_PYTHON = (3, 7)
#: The minor version of glibc that is assumed for a board without a connection: Debian 11, Ubuntu 20.04 (JetPack 5).
_USUAL_GLIBC = 31
_REMEDY = "install it on the board and give --runtime-on-board system, or install a newer Python on the board"
_DOWNLOAD_TIMEOUT_S = 900.0
_WHEELS_FILE = "wheels.json"
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Board:
    """The Python of a device and the device's private folder, as the device described them."""

    root: str
    machine: str
    libc: str
    libc_version: tuple[int, int]
    implementation: str
    python: tuple[int, int]
    abi: str

    @staticmethod
    def from_record(spec: str, record: dict[str, Any]) -> Board:
        """Check an answer to the request `prepare`. Raises `DeviceError`."""

        def word(name: str) -> str:
            value = record.get(name)
            return value if isinstance(value, str) and re.fullmatch(r"\w{1,32}", value, re.ASCII) else "unknown"

        root, python = record.get("root"), record.get("python")
        if not isinstance(root, str) or not root.startswith("/") or "\0" in root:
            raise DeviceError(f"{spec}: the device does not report its folder")
        if not isinstance(python, list) or len(python) != 2 or not all(isinstance(part, int) for part in python):
            raise DeviceError(f"{spec}: the device does not report its Python version")
        if tuple(python) < _OLDEST_PYTHON:
            raise DeviceError(f"{spec}: python3 there is {python[0]}.{python[1]}, the agent needs 3.7 or newer")
        found = re.match(r"(\d{1,3})\.(\d{1,3})", str(record.get("libc_version")), re.ASCII)
        version = (int(found[1]), int(found[2])) if found else (0, 0)
        return Board(
            root, word("machine"), word("libc"), version, word("implementation"), (python[0], python[1]), word("abi")
        )

    @staticmethod
    def from_tag(tag: str) -> Board:
        """Return the board of a tag like `aarch64-cp311`, with glibc 2.31, or like `armv7l-cp311-glibc2.36`.

        Raises `UsageError`.
        """
        found = re.fullmatch(r"(\w{1,32})-(cp3(\d{1,2}))(?:-glibc2\.(\d{1,2}))?", tag, re.ASCII)
        if found is None or int(found[3]) < _OLDEST_PYTHON[1]:
            raise UsageError(
                f"--wheels {tag!r:.100}: expected a machine and a Python from 3.7 on, like aarch64-cp311, "
                "optionally with its C library, like aarch64-cp311-glibc2.36"
            )
        minor = int(found[3])
        abi = f"{found[2]}m" if minor == 7 else found[2]
        return Board("/", found[1], "glibc", (2, int(found[4] or _USUAL_GLIBC)), "CPython", (3, minor), abi)

    @property
    def tag(self) -> str:
        """Machine and Python, in the form that the agent uses."""
        return f"{self.machine}-cp{self.python[0]}{self.python[1]}"

    def __str__(self) -> str:
        version = ".".join(map(str, self.libc_version))
        return f"Python {self.python[0]}.{self.python[1]} on {self.machine} ({self.libc} {version})"

    @property
    def platforms(self) -> list[str]:
        """The platform tags of suitable wheels: built for its C library or an older one (PEP 600, 656)."""
        major, minor = self.libc_version
        if self.libc == "glibc" and major == 2:
            old = ["manylinux2014"] if minor >= 17 else []
            return [f"{tag}_{self.machine}" for tag in [*(f"manylinux_2_{n}" for n in range(minor, 16, -1)), *old]]
        if self.libc == "musl" and major == 1:
            return [f"musllinux_1_{n}_{self.machine}" for n in range(minor, 0, -1)]
        return []


@dataclass(frozen=True)
class Wheels:
    """All wheels that a runtime needs on one kind of board."""

    runtime: str
    paths: tuple[Path, ...]

    @cached_property
    def files(self) -> dict[str, Path]:
        """The wheels by their path on the device, which contains their SHA-256."""
        return {f"wheels/{_sha256(path)}.whl": path for path in self.paths}

    @property
    def name(self) -> str:
        """The name of the folder of the unpacked wheels; it contains a hash of their content."""
        hashes = sorted(Path(place).stem for place in self.files)
        return f"{self.runtime}-{hashlib.sha256(chr(10).join(hashes).encode()).hexdigest()[:16]}"

    @property
    def versions(self) -> str:
        """Packages and versions, for the user."""
        return ", ".join(" ".join(path.name.split("-")[:2]) for path in self.paths)

    @cached_property
    def contents(self) -> dict[str, dict[str, tuple[str, int, int]]]:
        """The files of that folder, by wheel: `{path of the wheel: {path: (member, size, CRC-32)}}`."""
        found: dict[str, dict[str, tuple[str, int, int]]] = {}
        for file, path in self.files.items():
            with zipfile.ZipFile(path) as wheel:
                members = [(_installed(member.filename), member) for member in wheel.infolist()]
            found[file] = {
                place: (member.filename, member.file_size, member.CRC) for place, member in members if place is not None
            }
        return found

    @property
    def size(self) -> int:
        """The size of the folder in bytes."""
        return sum(size for places in self.contents.values() for _, size, _ in places.values())


def _installed(name: str) -> str | None:
    """Return the path to which a member of a wheel is installed (PEP 427); None if it belongs to no package."""
    parts = PurePosixPath(name).parts
    if name.endswith("/") or not parts or ".." in parts or parts[0] == "/":
        return None
    if parts[0].endswith(".data"):
        return "/".join(parts[2:]) if len(parts) > 2 and parts[1] in ("purelib", "platlib") else None
    return "/".join(parts)


def find_wheels(
    runtime: str,
    board: Board,
    cache_dir: Path | None = None,
    tell: Callable[[str], None] | None = None,
    remedy: str = _REMEDY,
) -> Wheels:
    """Return the wheels of `runtime` for `board`, from the cache or the package index. `tell` announces a download.

    `remedy` completes the error message. Raises `DeviceError` if there are no wheels, or they cannot be downloaded.
    """
    if runtime not in runtimes():
        raise DeviceError(f"ofa-profiler cannot install {runtime} on a board: {remedy}")
    if board.implementation != "CPython" or not board.platforms:
        raise DeviceError(f"there are no wheels of {runtime} for {board}: {remedy}")
    folder = (cache_dir or default_cache_dir()) / "wheels" / f"{runtime}-{board.abi}-{board.platforms[0]}"
    with _ONE_AT_A_TIME:  # one download for several boards of one kind
        if (found := _cached(folder)) is None:
            if tell is not None:
                tell(f"downloading {runtime} for {board} into the cache")
            _fill(folder, runtimes()[runtime].packages, board, remedy)
            found = _cached(folder)
    if found is None:
        raise DeviceError(f"the wheels of {runtime} in {folder} are damaged: remove the folder")
    return Wheels(runtime, tuple(found))


class _NoWheels(DeviceError):
    """A package has no wheels for the board, in any version."""


def _fill(folder: Path, choices: Sequence[Sequence[str]], board: Board, remedy: str) -> None:
    """Download the first available of `choices` into a folder, which gets its name when it is complete."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as name:
            fresh = Path(name) / "wheels"
            _download_first(choices, board, fresh, remedy)
            hashes = {path.name: _sha256(path) for path in sorted(fresh.glob("*.whl"))}
            write_text(fresh / _WHEELS_FILE, json.dumps(hashes, indent=1) + "\n")
            if _cached(folder) is not None:  # another process was faster, and may already use it
                return
            remove(folder)
            with contextlib.suppress(OSError):
                fresh.rename(folder)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror or error}") from error


def _cached(folder: Path) -> list[Path] | None:
    """Return the wheels of an earlier download; None unless all are there and undamaged."""
    try:
        expected = json.loads((folder / _WHEELS_FILE).read_text(encoding="utf-8"))
        paths = [folder / Path(name).name for name in sorted(expected)]
        return paths if paths and all(_sha256(path) == expected[path.name] for path in paths) else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None


def _download_first(choices: Sequence[Sequence[str]], board: Board, folder: Path, remedy: str) -> None:
    refused = None
    for packages in choices:
        try:
            return _download(packages, board, folder, remedy)
        except _NoWheels as error:  # noqa: PERF203
            refused = refused or error
    assert refused is not None
    raise refused


def _download(packages: Sequence[str], board: Board, folder: Path, remedy: str) -> None:
    major, minor = board.python
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={major}.{minor}"]
    command += [f"--abi={abi}" for abi in (board.abi, "abi3", "none")]
    command += [f"--platform={platform}" for platform in board.platforms]
    try:
        done = subprocess.run(
            [*command, "--dest", str(folder), *packages], capture_output=True, timeout=_DOWNLOAD_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"cannot download {packages[0]} for {board}: {error}") from None
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace")
        if missing := re.search(r"No matching distribution found for (\S+)", words):
            raise _NoWheels(f"there are no wheels of {missing[1]} for {board}: {remedy}")
        errors = (
            [line for line in words.splitlines() if line.startswith("ERROR")] or words.splitlines() or ["no reason"]
        )
        raise DeviceError(f"cannot download {packages[0]} for {board} with pip: {errors[-1][:300]}")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
