"""Configurations of ssh, as we read them and as `ssh -G` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ofa_profiler.devices.ssh import config_files, openssh
from ofa_profiler.devices.ssh.target import Target, make_target
from ofa_profiler.errors import InputFileError, UsageError


def write(home: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = home / ".ssh" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def ours(name: str, user: str | None = None, port: int | None = None) -> Target | None:
    try:
        return make_target(name, config_files.read(name, user, port)[0])
    except (InputFileError, ValueError):
        return None


def theirs(name: str, user: str | None = None, port: int | None = None) -> Target | None:
    try:
        return make_target(name, openssh.ask(name, user, port))
    except (UsageError, ValueError, openssh.CannotAsk):
        return None
