"""The options of a device beside its name. Every kind of device uses those that concern it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ofa_profiler.base.releases import check_release
from ofa_profiler.errors import UsageError


@dataclass(frozen=True)
class DeviceOptions:
    """The options of `--device`."""

    #: The fingerprint of a host key to trust from now on, as `ssh-keygen -lf` prints it: `SHA256:...`.
    accept_host_key: str | None = None
    #: `push` installs the runtime on the device; `system` uses the one that is installed there.
    runtime_on_board: str = "push"
    #: The release of the runtime to bring: `X.Y` (its newest `X.Y.Z`) or `X.Y.Z`; None for `like_release`.
    runtime_version: str | None = None
    #: The release to bring if the board has a wheel of it, else the newest; None for this machine's.
    like_release: str | None = None
    #: The private folder on a board that is reached over ssh; None for `~/.ofa-profiler`.
    folder_on_board: str | None = None
    #: The cores to measure on; None for the fastest ones.
    cores: tuple[int, ...] | None = None
    #: A Python for phones that was built on another machine (`android/python_bundle.py`).
    phone_bundle: Path | None = None
    #: Google's benchmark program for phones, to be used instead of Python and a runtime.
    benchmark_model: Path | None = None
    #: Receives lines for the user: what to do, or why it takes a while.
    tell: Callable[[str], None] | None = None
    #: Asks the user a question and returns the answer, which is not shown; None without a user.
    ask_password: Callable[[str], str] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.runtime_version is None:
            return
        check_release(self.runtime_version)
        if self.runtime_on_board == "system":
            raise UsageError(
                "--runtime-version chooses the runtime that is brought, --runtime-on-board system brings none: "
                "give one of them"
            )
        if self.benchmark_model is not None:
            raise UsageError("--runtime-version and --benchmark-model exclude each other: that program is the runtime")
