"""What can be asked of a device beside its name. Each transport takes what concerns it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DeviceOptions:
    """The options of `--device`."""

    #: Fingerprint of a host key to be trusted from now on, as `ssh-keygen -lf` prints it: `SHA256:...`.
    accept_host_key: str | None = None
    #: `push` brings the runtime to the device; `system` uses what is installed there.
    runtime_on_board: str = "push"
    #: Cores to measure on; None for the fastest ones.
    cores: tuple[int, ...] | None = None
    #: A Python for phones that was built elsewhere (`phone_bundle.py`).
    phone_bundle: Path | None = None
    #: Google's benchmark program for the phone, used instead of Python and a runtime.
    benchmark_model: Path | None = None
    #: Takes lines for people: what somebody has to do, or why it takes a while.
    tell: Callable[[str], None] | None = None
    #: Asks the user a question and gives the answer, which is not shown; None where nobody can be asked.
    ask_password: Callable[[str], str] | None = field(default=None, compare=False, repr=False)
