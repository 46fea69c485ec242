"""Brings a runtime to a board that runs there. It is imported once on the board, before anything is exported.

A release can have wheels for a board and still not run on it: its processor lacks an instruction, or its C library a
function. Then the releases before it are tried, unless the user asked for one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ofa_profiler.base.releases import Wanted, before, numbers_of
from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.devices.remote.board import Board
from ofa_profiler.devices.remote.download import NoWheels
from ofa_profiler.devices.remote.wheels import Wheels, find_wheels
from ofa_profiler.errors import DeviceError
from ofa_profiler.runtimes import get_runtime

#: Releases that are tried, at about 20 MB each.
_MAX_RELEASES = 4


@dataclass(frozen=True)
class Ready:
    """A runtime that loads on a board. `wheels`: those that were brought; None if the board has its own."""

    version: str | None
    wheels: Wheels | None = None

    @property
    def folders(self) -> dict[str, Wheels]:
        """The wheels by their folder on the device."""
        return {} if self.wheels is None else {f"runtimes/{self.wheels.name}": self.wheels}

    def is_at_most(self, release: str | None) -> bool:
        """Whether it is not newer than `release`."""
        here, limit = numbers_of(self.version), numbers_of(release)
        return here is None or limit is None or here <= limit


class BrokenRuntime(DeviceError):
    """A runtime does not load on a device. `cause` is that of `records.Fatal`."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


#: Imports a runtime on the board and returns its version. Raises `BrokenRuntime`.
Check = Callable[[Wheels | None], str | None]


def wanted_release(runtime: str, options: DeviceOptions, at_most: str | None = None) -> Wanted:
    """Return the wish for a release of a runtime: asked for, or else that of a table or of this machine."""
    if options.runtime_version is not None:
        return Wanted(asked=options.runtime_version)
    return Wanted(preferred=options.like_release or get_runtime(runtime).installed_release, at_most=at_most)


def use_own(spec: str, runtime: str, check: Check) -> Ready:
    """Check the runtime that a board has. Nothing is changed there."""
    try:
        return Ready(check(None))
    except BrokenRuntime as error:
        package = (*get_runtime(runtime).packages, (runtime,))[0][0]
        hint = {
            "noexec": "mount that file system without noexec, or install the runtime elsewhere",
            "memory": "close other programs there",
        }.get(error.cause, f"install or repair {package} there, or omit --runtime-on-board system")
        raise DeviceError(f"device {spec}: {error}; {hint}") from None


def bring(spec: str, runtime: str, board: Board, wanted: Wanted, check: Check, tell: Callable[[str], None]) -> Ready:
    """Bring a release of a runtime that loads on the board. `tell` receives notes. Raises `DeviceError`."""
    tried: list[str] = []
    while True:
        try:
            wheels = find_wheels(runtime, board, tell=tell, wanted=wanted)
        except NoWheels as error:
            if not tried:
                raise
            raise DeviceError(f"device {spec}: {_failed(tried)}; no older release: {error}") from None
        if not tried:
            note_other_release(wheels, board, wanted, tell)
        try:
            return Ready(check(wheels), wheels)
        except BrokenRuntime as error:
            reason = str(error).partition(": ")[2] or error  # without the name of the runtime
            tried.append(f"{runtime} {wheels.version} does not run there ({reason})")
            if error.cause != "runtime" or wanted.asked is not None or len(tried) >= _MAX_RELEASES:
                raise DeviceError(f"device {spec}: {_failed(tried)}; {_remedy(error.cause, board)}") from None
            tell(f"{spec}: {tried[-1]}: trying the release before it")
            wanted = replace(wanted, below=before(wheels.version))


def _failed(tried: list[str]) -> str:
    """The first failure in full, and how many older releases failed, too."""
    return tried[0] + (f", nor do the {len(tried) - 1} before it" if len(tried) > 1 else "")


def note_other_release(wheels: Wheels, board: Board, wanted: Wanted, tell: Callable[[str], None]) -> None:
    """Tell the user if there is no wheel of the preferred release."""
    if wanted.asked is None and wanted.at_most is None and wanted.preferred not in (None, wheels.version):
        tell(
            f"note: pip finds no wheel of {wheels.runtime} {wanted.preferred} for {board}, so {wheels.version} is "
            "brought; --runtime-version chooses another"
        )


def _remedy(cause: str, board: Board) -> str:
    if cause == "noexec":
        return f"the runtime lies in {board.root}: --folder-on-board DIR moves it to another file system"
    if cause == "memory":
        return "close other programs there"
    return "--runtime-version X.Y brings another release, --runtime-on-board system uses the board's own"
