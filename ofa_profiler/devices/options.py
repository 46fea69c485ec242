"""The options of a device beside its name. Every kind of device uses those that concern it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DeviceOptions:
    """The options of `--device`."""

    #: The fingerprint of a host key to trust from now on, as `ssh-keygen -lf` prints it: `SHA256:...`.
    accept_host_key: str | None = None
    #: `push` installs the runtime on the device; `system` uses the one that is installed there.
    runtime_on_board: str = "push"
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
