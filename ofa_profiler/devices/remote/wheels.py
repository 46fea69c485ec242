"""The runtime for a board: this machine downloads the wheels that fit the board's Python.

The board describes its Python (`device_agents/store.py`), and pip finds the newest release with a wheel for it. The
board needs no internet. The wheels stay in the cache of this machine, so the next board of this kind needs no download.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import threading
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from ofa_profiler.base.cache_dir import default_cache_dir
from ofa_profiler.base.files import remove, write_text
from ofa_profiler.base.releases import Range, Wanted, numbers_of
from ofa_profiler.devices.remote.board import Board
from ofa_profiler.devices.remote.download import Excluded, NoWheels, download
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.runtimes import Runtime, runtimes

NEWEST = Wanted()
_REMEDY = "install it on the board and give --runtime-on-board system, or install a newer Python on the board"
_WHEELS_FILE = "wheels.json"
_ONE_AT_A_TIME = threading.Lock()


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
    def version(self) -> str:
        """The release of the runtime itself, like `1.20.1`."""
        packages = {re.sub("[-_.]+", "_", choice[0]) for choice in runtimes()[self.runtime].packages}
        found = [path for path in self.paths if path.name.split("-")[0] in packages]
        return _version_of(found[0] if found else self.paths[0])

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
    wanted: Wanted = NEWEST,
) -> Wheels:
    """Return the wheels of `runtime` for `board`, from the cache or the package index. `tell` announces a download.

    `remedy` completes the error message. Raises `NoWheels` if there are none of the `wanted` release, `DeviceError`
    if they cannot be downloaded.
    """
    if runtime not in runtimes():
        raise DeviceError(f"ofa-profiler cannot install {runtime} on a board: {remedy}")
    if board.implementation != "CPython" or not board.platforms:
        raise NoWheels(f"there are no wheels of {runtime} for {board}: {remedy}")
    name = f"{runtime}-{wanted.key}-{board.abi}-{board.platforms[0]}{_constraints()}"
    folder = (cache_dir or default_cache_dir()) / "wheels" / name
    with _ONE_AT_A_TIME:  # one download for several boards of one kind
        if (found := _cached(folder)) is None:
            if tell is not None:
                tell(f"downloading {runtime} for {board} into the cache")
            _fill(folder, runtimes()[runtime], board, wanted, remedy)
            found = _cached(folder)
    if found is None:
        raise DeviceError(f"the wheels of {runtime} in {folder} are damaged: remove the folder")
    return Wheels(runtime, tuple(found))


def _constraints() -> str:
    """A part of a folder's name for the constraints of pip and uv, because they decide what is downloaded."""
    paths = [Path(path) for name in ("PIP_CONSTRAINT", "UV_CONSTRAINT") for path in os.environ.get(name, "").split()]
    if not paths:
        return ""
    contents = [str(path).encode() + (path.read_bytes() if path.is_file() else b"") for path in paths]
    return f"-{hashlib.sha256(b' '.join(contents)).hexdigest()[:8]}"


def _fill(folder: Path, runtime: Runtime, board: Board, wanted: Wanted, remedy: str) -> None:
    """Download the first available of the packages of a runtime. The folder gets its name when it is complete."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as name:
            fresh = Path(name) / "wheels"
            _download_first(runtime, board, wanted, fresh, remedy)
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


def _download_first(runtime: Runtime, board: Board, wanted: Wanted, folder: Path, remedy: str) -> None:
    """Download the first of the alternative packages that has a wanted release for the board, with what it needs."""
    refused: dict[str, NoWheels] = {}
    for choice in runtime.packages:
        for releases in wanted.ranges:
            try:
                return _download_all(choice, releases, runtime, board, folder)
            except NoWheels as error:  # noqa: PERF203
                remove(folder)
                refused[choice[0]] = error  # the last range of releases is the widest
    (first, reason), *others = refused.items()
    if isinstance(reason, Excluded):
        raise reason
    named = [_missing(package, error) for package, error in others]
    also = f" (nor of {', '.join(named)})" if named else ""
    raise NoWheels(f"{reason}{also}: {_hint(first, board) or remedy}")


def _missing(package: str, error: NoWheels) -> str:
    """The package without wheels: `package`, or one that it needs."""
    found = re.match(r"there are no wheels of (\S+)", str(error))
    missing = found[1] if found else package
    return package if missing.startswith(package) else f"{missing}, which {package} needs"


def _download_all(choice: Sequence[str], releases: Range, runtime: Runtime, board: Board, folder: Path) -> None:
    package, *others = choice
    download(f"{package}{releases.specifier}", board, folder)
    (wheel,) = folder.glob("*.whl")
    for other in others:
        download(_fitting(other, runtime, wheel), board, folder)


def _fitting(package: str, runtime: Runtime, wheel: Path) -> str:
    """`package`, as the release of the runtime in `wheel` needs it: its metadata do not exclude a numpy 2."""
    since, release = numbers_of(runtime.numpy_2_since), numbers_of(_version_of(wheel))
    is_older = since is not None and release is not None and release < since
    return "numpy<2" if is_older and package == "numpy" else package


def _hint(package: str, board: Board) -> str | None:
    """What helps on a kind of board for which hardly anybody builds wheels."""
    if board.libc == "musl":
        return f"on Alpine, `apk add py3-{package}` may have it: then give --runtime-on-board system"
    if board.machine == "armv7l":
        others = "" if package != "onnxruntime" else ", or a 64-bit system"
        return (
            "a 32-bit board needs tflite-runtime (--runtime litert, Python up to 3.11) from its own pip, with numpy<2: "
            f"then give --runtime-on-board system{others}"
        )
    return None


def _version_of(wheel: Path) -> str:
    return wheel.name.split("-")[1]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
