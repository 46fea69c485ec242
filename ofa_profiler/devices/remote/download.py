"""Downloads wheels for a board with pip, or with uv where there is no pip, and tells why one cannot be downloaded.

A package index that was not reached is not one without wheels: only the words of pip tell one from the other.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ofa_profiler.devices.remote.board import Board
from ofa_profiler.devices.remote.repack import repack
from ofa_profiler.errors import DeviceError

_TIMEOUT_S = 900.0
#: The platforms that uv knows by name (`uv pip install --help`): machines, and minor versions of glibc 2.
_UV_MACHINES = ("aarch64", "x86_64")
_UV_GLIBC = (17, 28, *range(31, 41))
_NO_PIP = (
    "this environment has neither pip nor uv to download {package} with; one of `uv pip install pip` and "
    "`python -m ensurepip` adds pip"
)
#: Pattern in the words of pip or uv -> why the index was not reached. The first that is found counts.
_UNREACHED = {
    "CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|SSLError|invalid peer certificate|UnknownIssuer": (
        "its certificate is not trusted here (PIP_CERT names a file of certificates)"
    ),
    "[Pp]roxy ?[Ee]rror|Cannot connect to proxy|Tunnel connection failed|407 Proxy|tunnel error": (
        "the proxy does not let us through (HTTPS_PROXY)"
    ),
    r"\b40[13] Client Error|HTTP error 40[13]|status client error \(40[13]": "it refuses us (a password?)",
    "[Nn]ame resolution|Name or service not known|getaddrinfo|nodename nor servname|NameResolutionError|dns error": (
        "no host of that name is found: is this machine offline?"
    ),
    "Connection (refused|reset)|Network is unreachable|No route to host|RemoteDisconnected|tcp connect error": (
        "no connection"
    ),
    "[Tt]imed? ?out|Timeout": "it does not answer in time",
    r"\b5\d\d Server Error|HTTP error 5\d\d|status server error": "it has an error of its own",
}


class NoWheels(DeviceError):
    """The index was reached, and has no wheel for the board in the range that was asked for."""


class Excluded(NoWheels):
    """The constraints of pip on this machine exclude all releases in that range."""


class _NoPip(Exception):
    """This Python has no pip."""


def download(requirement: str, board: Board, folder: Path) -> None:
    """Put the newest wheel of `requirement` that fits the board into a folder. Raises `NoWheels`, `DeviceError`."""
    try:
        _pip(requirement, board, folder)
    except _NoPip:
        program = shutil.which("uv")
        if program is None:
            raise DeviceError(_NO_PIP.format(package=requirement)) from None
        if board.free_threaded or board.machine not in _UV_MACHINES:
            raise DeviceError(
                f"uv cannot choose wheels for {board}; `uv pip install pip` adds pip, which can"
            ) from None
        _uv(program, requirement, board, folder)


def _pip(requirement: str, board: Board, folder: Path) -> None:
    major, minor = board.python
    # At this level, pip tells which pages it could not read, and which wheels do not fit.
    command = [sys.executable, "-m", "pip", "download", "-vv", "--progress-bar=off", "--disable-pip-version-check"]
    command += ["--no-input", "--no-deps", "--only-binary=:all:", "--implementation=cp"]
    command += [f"--python-version={major}.{minor}", *(f"--abi={abi}" for abi in board.abis)]
    command += [f"--platform={platform}" for platform in board.platforms]
    code, words = _run([*command, "--dest", str(folder), requirement], requirement, board)
    if code == 0:
        # An older pip adds the stable ABI to the tags that it is given.
        if board.free_threaded and list(folder.glob("*-abi3-*.whl")):
            raise NoWheels(f"the newest wheel of {requirement} needs a global lock, which {board} lacks")
        return
    if "No module named pip" in words:
        raise _NoPip
    raise explain_pip(words, requirement, board)


def _uv(program: str, requirement: str, board: Board, folder: Path) -> None:
    """uv downloads no wheels, but it installs for another platform, and the result can be packed again."""
    known = [minor for minor in _UV_GLIBC if (2, minor) <= board.libc_version]
    platform = f"manylinux_2_{max(known)}" if board.libc == "glibc" and known else "unknown-linux-musl"
    with tempfile.TemporaryDirectory(prefix="ofa-profiler-") as installed:
        command = [program, "pip", "install", "--target", installed, "--no-deps", "--no-progress"]
        command += ["--only-binary=:all:"]
        command += [f"--python={sys.executable}", f"--python-platform={board.machine}-{platform}"]
        command += ["--python-version={}.{}".format(*board.python), requirement]
        code, words = _run(command, requirement, board)
        if code:
            raise explain_uv(words, requirement, board)
        repack(Path(installed), folder)


def _run(command: list[str], requirement: str, board: Board) -> tuple[int, str]:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"cannot download {requirement} for {board}: {error}") from None
    return done.returncode, (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace")


def explain_pip(words: str, requirement: str, board: Board) -> DeviceError:
    """Return the error for what pip printed (at the level -vv) when it failed."""
    lines = words.splitlines()
    errors = [line for line in lines if line.startswith("ERROR")]
    # An index without the package, beside another that has it, is reached.
    missing = re.compile(r"\b(404|410) Client Error")
    failed = [line for line in lines if line.startswith("Could not fetch URL") and not missing.search(line)]
    is_absent = "No matching distribution found" in words
    if (failed or not is_absent) and (reason := _unreached("\n".join(failed or errors))):
        return _not_reached(requirement, board, reason, failed or errors)
    if failed:
        return _not_reached(requirement, board, failed[-1].partition(": ")[2][:200], failed)
    if is_absent:
        return NoWheels(f"there are no wheels of {requirement} for {board}{_what_there_is(words, board)}")
    if "ResolutionImpossible" in words:
        return Excluded(f"the constraints of pip here exclude {requirement}: PIP_CONSTRAINT, or `pip config list`")
    if "No space left on device" in words:
        return DeviceError(f"cannot download {requirement}: the disk of this machine is full")
    reason = errors[-1] if errors else " ".join(words.split())[-300:] or "no reason"
    return DeviceError(f"cannot download {requirement} for {board} with pip: {reason[:300]}")


def explain_uv(words: str, requirement: str, board: Board) -> DeviceError:
    """Return the error for what uv printed when it failed."""
    said = " ".join(words.split())
    if "No solution found" not in words and (reason := _unreached(words)):
        return _not_reached(requirement, board, reason, [said])
    if "No solution found" in words:
        hint = re.search(r"hint: (.*)", said)
        return NoWheels(f"there are no wheels of {requirement} for {board}{'; ' + hint[1][:300] if hint else ''}")
    return DeviceError(f"cannot download {requirement} for {board} with uv: {said[-300:]}")


def _unreached(words: str) -> str | None:
    return next((reason for pattern, reason in _UNREACHED.items() if re.search(pattern, words)), None)


def _not_reached(requirement: str, board: Board, reason: str, lines: list[str]) -> DeviceError:
    address = re.search(r"https?://([^/\s'\"`@)]+@)?([^/\s'\"`:)]+)", " ".join(lines))
    where = f" {address[2]}" if address else ""
    return DeviceError(f"cannot download {requirement} for {board}: the package index{where} was not reached: {reason}")


_SKIPPED = re.compile(r"none of the wheel's tags \(([^)]*)\)")
_VERSIONS = re.compile(r"\(from versions: ([^)]*)\)")


def _what_there_is(words: str, board: Board) -> str:
    """Return what the index has instead, as the end of a sentence: other releases, or wheels for other boards."""
    versions = _VERSIONS.search(words)
    if versions and versions[1] not in ("", "none"):
        found = versions[1].split(", ")
        return f"; there are {found[0]} to {found[-1]}" if len(found) > 1 else f"; there is {found[0]}"
    tags = [tag for skipped in _SKIPPED.findall(words) for tag in _split_tags(skipped)]
    here = [tag for tag in tags if tag[2].endswith(f"_{board.machine}") and "linux" in tag[2]]
    if not here:
        return f": none for {board.machine}" if tags else ""
    same_libc = [tag for tag in here if tag[2].startswith("musllinux" if board.libc == "musl" else "manylinux")]
    if not same_libc:
        return f": none for {board.libc}, the C library of the board"
    if newer := sorted(_glibc(tag[2]) for tag in same_libc if tag[1] in board.abis):
        return f": they need {board.libc} {newer[0][0]}.{newer[0][1]} or newer"
    pythons = [f"{major}.{minor}" for major, minor in sorted({*filter(None, (_python(tag[1]) for tag in same_libc))})]
    if not pythons:
        return ""
    return f": they are for Python {pythons[0]}" + (f" to {pythons[-1]}" if len(pythons) > 1 else "")


def _split_tags(skipped: str) -> Iterator[tuple[str, str, str]]:
    """`cp39-cp39-linux_x86_64, ...` as (Python, ABI, platform)."""
    for tag in skipped.split(", "):
        parts = tag.split("-")
        if len(parts) == 3:
            yield parts[0], parts[1], parts[2]


def _python(abi: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"cp(\d)(\d{1,2})m?", abi)
    return (int(found[1]), int(found[2])) if found else None


def _glibc(platform: str) -> tuple[int, int]:
    if found := re.search(r"linux_(\d+)_(\d+)_", platform):
        return int(found[1]), int(found[2])
    return {"manylinux2014": (2, 17), "manylinux2010": (2, 12)}.get(platform.partition("_")[0], (2, 5))
