"""What a board says about its Python and its C library, and which wheels fit it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ofa_profiler.errors import DeviceError, UsageError

_OLDEST_PYTHON = (3, 7)
#: The minor version of glibc that is assumed for a board without a connection: Debian 11, Ubuntu 20.04 (JetPack 5).
_USUAL_GLIBC = 31


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
        found = re.fullmatch(r"(\w{1,32})-(cp3(\d{1,2})t?)(?:-glibc2\.(\d{1,2}))?", tag, re.ASCII)
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
        return f"{self.machine}-cp{self.python[0]}{self.python[1]}{'t' * self.free_threaded}"

    @property
    def free_threaded(self) -> bool:
        """Whether its Python has no global lock (`python3.13t`). Such a Python needs wheels of its own."""
        return self.abi.endswith("t")

    def __str__(self) -> str:
        version = ".".join(map(str, self.libc_version))
        python = f"{self.python[0]}.{self.python[1]}{'t' * self.free_threaded}"
        return f"Python {python} on {self.machine} ({self.libc} {version})"

    @property
    def abis(self) -> list[str]:
        """The tags of suitable wheels for its Python. `abi3` excludes Pythons without a global lock (PEP 703)."""
        return [self.abi, "none"] if self.free_threaded else [self.abi, "abi3", "none"]

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
