"""This machine. The agent runs in its own process, the same agent as on a board."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ofa_profiler.base.releases import Range, is_of
from ofa_profiler.devices.base import Agent, Device
from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.protocol.kit import AGENT_FILE, agent_source
from ofa_profiler.runtimes import get_runtime

_PATIENCE_S = 5.0


class LocalDevice(Device):
    """`--device local`."""

    spec = "local"
    _cores: tuple[int, ...] | None = None
    _asked_release: str | None = None

    def __init__(self, options: DeviceOptions = DeviceOptions()) -> None:  # noqa: B008 (frozen)
        self._cores = options.cores
        self._asked_release = options.runtime_version

    def prepare_runtime(self, runtime: str, at_most: str | None = None) -> str | None:  # noqa: ARG002
        found = get_runtime(runtime)
        installed = found.installed_release
        if self._asked_release is not None and not is_of(installed, self._asked_release):
            package = found.packages[0][0] if found.packages else runtime
            raise UsageError(
                f"device {self.spec}: {package} {installed or 'is not'} installed here, --runtime-version asks for "
                f"{self._asked_release}: pip install '{package}{Range.of(self._asked_release).specifier}', or omit it"
            )
        return installed

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        return start_agent(kit, arguments, self._cores)


def start_agent(
    kit: Path | None,
    arguments: Sequence[str],
    cores: Sequence[int] | None,
    *,
    lock_for: str = "",
    patience_s: float = _PATIENCE_S,
) -> LocalAgent:
    """Start an agent in a process on this machine. Raises `DeviceError`.

    There is one lock for all kits, so that only one measurement runs on a machine at a time. An agent that measures
    another machine names that in `lock_for`.
    """
    command = [sys.executable, str(kit / AGENT_FILE if kit else agent_source()), *arguments]
    if kit is not None:
        command += ["--kit", str(kit), "--attached", "--lock", str(_lock_file(lock_for))]
        if cores:
            command += ["--cores", ",".join(map(str, cores))]
    try:
        return LocalAgent(command, patience_s)
    except OSError as error:
        raise DeviceError(f"cannot start the agent: {error}") from error


def _lock_file(machine: str = "") -> Path:
    user = re.sub(r"\W", "_", getpass.getuser()) if os.name == "nt" else str(os.getuid())
    name = f"-{hashlib.sha256(machine.encode()).hexdigest()[:16]}" if machine else ""
    return Path(tempfile.gettempdir()) / f"ofa-profiler-{user}{name}.lock"


class LocalAgent(Agent):
    """A child process in its own session, so that only the host receives Ctrl-C of the terminal."""

    def __init__(self, command: Sequence[str], patience_s: float = _PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

    @property
    def pid(self) -> int:
        """The process id of the agent's supervisor."""
        return self._process.pid

    def read_line(self, limit: int) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline(limit)

    def finish(self) -> tuple[str, str]:
        code = self._process.wait()
        self._words.seek(0)
        words = self._words.read().decode("utf-8", "replace")
        if code >= 0:
            return f"exit code {code}", words
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}", words
        return f"killed by signal {-code}", words

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(self._patience_s)  # the agent ends when its stdin does
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._words.close()
