"""The processes of `--acquire` and `--release`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

from ofa_profiler.cli.terminal import say
from ofa_profiler.errors import DeviceError, UsageError

#: The name of the device in the environment of the commands.
_VARIABLE = "OFA_DEVICE"
#: After so long, the user is told that a device is being waited for. A queue may take hours.
_SAY_AFTER_S = 15.0
#: A release that takes longer has failed.
_RELEASE_LIMIT_S = 60.0
#: An interrupted command may take so long to end.
_END_LIMIT_S = 5.0
_LONGEST_WORDS = 300


class _Command:
    """A running command in a session of its own: Ctrl-C in the terminal does not end it."""

    def __init__(self, words: Sequence[str], spec: str) -> None:
        # Files, because a program that the command leaves behind would keep pipes open.
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 (read later)
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env={**os.environ, _VARIABLE: spec},
            start_new_session=True,
        )

    def failure(self) -> str | None:
        """How it has failed, with what it has printed; None if it has not."""
        code = self.process.returncode
        if not code:
            return None
        printed = _end_of(self._err) or _end_of(self._out)
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        return f"failed with {how}" + (f": {printed}" if printed else "")

    def end(self, *numbers: int) -> None:
        """End it and its children by signals, until one of them works."""
        for number in numbers:
            if sys.platform == "win32":
                self.process.kill()
            else:
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_LIMIT_S)
                return


def _end_of(file: IO[bytes]) -> str:
    file.seek(0)
    return " ".join(file.read().decode(errors="replace").split())[-_LONGEST_WORDS:]


def acquire(words: Sequence[str], spec: str) -> None:
    """Raises `DeviceError` if the command fails, `UsageError` if it cannot be run."""
    try:
        command = _Command(words, spec)
    except OSError as error:
        raise UsageError(f"--acquire for {spec} cannot be run: {error.strerror or error}") from error
    try:
        try:
            command.process.wait(_SAY_AFTER_S)
        except subprocess.TimeoutExpired:
            say(f"note: waiting for --acquire of {spec}")
            command.process.wait()
    except BaseException:
        command.end(signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM))
        raise
    if why := command.failure():
        raise DeviceError(f"--acquire for {spec} {why}")


def release(words: Sequence[str], spec: str) -> bool:
    """Run the command to its end, also if this process is interrupted meanwhile, and report if it fails."""
    interruption: KeyboardInterrupt | None = None
    try:
        command = _Command(words, spec)
        limit_s = time.monotonic() + _RELEASE_LIMIT_S
        while command.process.returncode is None:
            try:
                command.process.wait(max(0.0, limit_s - time.monotonic()))
            except KeyboardInterrupt as error:  # noqa: PERF203 (it must not end the loop)
                interruption = error
        why = command.failure()
    except OSError as error:
        why = f"cannot be run: {error.strerror or error}"
    except subprocess.TimeoutExpired:
        command.end(getattr(signal, "SIGKILL", signal.SIGTERM))
        why = f"did not end within {_RELEASE_LIMIT_S:g} s"
    if why:
        say(f"warning: --release for {spec} {why}")
    if interruption is not None:
        raise interruption
    return not why
