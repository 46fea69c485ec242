"""The interface of a connection to a device: start a POSIX command there and exchange bytes with it.

    Shell     starts command lines on the device        (`devices/ssh`, `devices/adb`)
    Process   a running command: its stdin, its stdout, how it ended

Everything else is here, once for all transports: quoting, skipping the output of login scripts, lines, and running a
command to its end. Nothing else in the package builds a command line for a device.
"""

from __future__ import annotations

import contextlib
import io
import secrets
import shlex
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ofa_profiler.errors import DeviceError, TransientDeviceError, UsageError

#: A device that sends nothing for this long is lost. All programs that we run there write more often.
SILENCE_S = 45.0
#: Login scripts may print this much before our command starts.
_MAX_GREETING_BYTES = 1 << 20
_MAX_OUTPUT_BYTES = 64 << 20
_MAX_MESSAGE = 4096


def command_line(argv: Sequence[str]) -> str:
    """Return `argv` as one line for a POSIX shell, which passes every argument to the program unchanged."""
    if any("\0" in argument for argument in argv):
        raise DeviceError("an argument for the device contains a zero byte")
    return shlex.join(argv)


def for_any_login_shell(line: str) -> str:
    """Return a command line that runs `line` in a POSIX shell, whatever the login shell is.

    In single quotes, csh interprets `!` and stops at a line end, and fish interprets backslashes.
    """
    if not any(character in line for character in "!\n\\"):
        return line
    coded = "".join(f"\\0{ord(character):03o}" if character in "!\n\\'" else character for character in line)
    return f"""exec sh -c 'eval "$(printf %b "$1")"' sh '{coded}'"""


class Silence(TransientDeviceError):
    """A program on the device has sent nothing for too long. The link may be lost or not."""


class Process(ABC):
    """A process on the device. Methods raise `TransientDeviceError` when the connection is lost."""

    @abstractmethod
    def read(self, size: int, timeout_s: float) -> bytes:
        """Return at most `size` bytes of its stdout, as soon as there are any; empty at the end.

        Raises `Silence` after `timeout_s` without any.
        """

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Write all of `data` to its stdin."""

    @abstractmethod
    def close_input(self) -> None:
        """Close its stdin."""

    @abstractmethod
    def wait(self) -> int:
        """Return its exit code after its stdout has ended. Negative if a signal killed it."""

    @abstractmethod
    def last_words(self) -> str:
        """Return the end of its stderr so far."""

    @abstractmethod
    def close(self) -> None:
        """Close its stdin and stdout. Never raises."""


class Lines:
    """The stdout of a process, line by line."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._buffer = bytearray()
        self._ended = False

    def read_line(self, limit: int) -> bytes:
        """Return the next line with its line end, or its first `limit` bytes; at the end the rest, then nothing."""
        searched = 0
        while (found := self._buffer.find(b"\n", searched, limit)) < 0 and len(self._buffer) < limit:
            searched = len(self._buffer)
            data = b"" if self._ended else self._process.read(1 << 16, SILENCE_S)
            if not data:
                self._ended = True
                break
            self._buffer += data
        size = found + 1 if found >= 0 else min(limit, len(self._buffer))
        line = bytes(self._buffer[:size])
        del self._buffer[:size]
        return line

    def read(self, size: int, timeout_s: float = SILENCE_S) -> bytes:
        """Return at most `size` bytes, as soon as there are any; empty at the end."""
        if not self._buffer:
            return b"" if self._ended else self._process.read(size, timeout_s)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


@dataclass(frozen=True)
class Running:
    """A process and its output, without the output of login scripts before it."""

    process: Process
    output: Lines


@dataclass(frozen=True)
class Completed:
    """How a command ended, and its output."""

    exit_code: int
    stdout: bytes
    stderr: str


class Readable(Protocol):
    """Bytes that can be read once, from beginning to end."""

    def read(self, size: int = ..., /) -> bytes: ...


class Shell(ABC):
    """A connection to a device. Methods raise `DeviceError`, or `TransientDeviceError`."""

    #: As in `--device`.
    spec: str

    @abstractmethod
    def open(self, line: str) -> Process:
        """Start a command line of a POSIX shell."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection. Never raises."""

    def spawn(self, argv: Sequence[str]) -> Running:
        """Start a program. The output of login scripts before it is dropped."""
        mark = secrets.token_hex(8)
        process = self.open(f"echo {mark}; exec {command_line(argv)}")
        try:
            output = Lines(process)
            self._skip_greeting(process, output, mark.encode())
        except BaseException:
            process.close()
            raise
        return Running(process, output)

    def _skip_greeting(self, process: Process, output: Lines, mark: bytes) -> None:
        def next_line() -> bytes:
            try:
                return output.read_line(_MAX_GREETING_BYTES)
            except Silence as error:
                raise Silence(
                    f"{error}, and the command has not started: perhaps a login script there waits for input"
                ) from None

        skipped, last = 0, b""
        while not (line := next_line()).rstrip().endswith(mark):
            skipped += len(line)
            if not line:
                words = one_line(process.last_words() or last.decode("utf-8", "replace")) or "no message"
                raise TransientDeviceError(
                    f"{self.spec}: the command shell ended ({_words_of(process.wait())}): {words}"
                )
            last = line
            if skipped > _MAX_GREETING_BYTES:
                raise DeviceError(f"{self.spec}: the login scripts there print without end")

    def run(self, argv: Sequence[str], data: bytes | Readable = b"") -> Completed:
        """Run a program to its end, with `data` as its stdin.

        The program may be silent for `SILENCE_S` at most. A lost connection is an error, never an exit code.
        """
        running = self.spawn(argv)
        source = io.BytesIO(data) if isinstance(data, bytes) else data
        feeder = _Feeder(running.process, source)
        feeder.start()
        try:
            stdout = bytearray()
            while chunk := running.output.read(1 << 16):
                stdout += chunk
                if len(stdout) > _MAX_OUTPUT_BYTES:
                    raise DeviceError(f"{self.spec}: a command prints without end")
            completed = Completed(running.process.wait(), bytes(stdout), running.process.last_words())
        finally:
            running.process.close()
            feeder.join()
        if feeder.error is not None:
            error = feeder.error
            raise UsageError(f"{self.spec}: cannot read a file to send: {error.filename}: {error.strerror}")
        return completed


class _Feeder(threading.Thread):
    """Writes the stdin of a process. Keeps an error of the source; the process reports its own."""

    def __init__(self, process: Process, source: Readable) -> None:
        super().__init__(daemon=True)
        self._process, self._source = process, source
        self.error: OSError | None = None

    def run(self) -> None:
        # A program that ends early stops reading. Its exit code, or the error of a lost link, tells the reason.
        with contextlib.suppress(DeviceError):
            try:
                shutil.copyfileobj(self._source, _Input(self._process), 1 << 18)
            except OSError as error:
                self.error = error
            self._process.close_input()


class _Input(io.RawIOBase):
    """The stdin of a process, as a file."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._process.write(data)
        return len(data)


def remove_folder(shell: Shell, folder: str) -> str:
    """Remove a folder from the device, and return its path. Raises `DeviceError`."""
    done = shell.run(["rm", "-rf", folder])
    if done.exit_code != 0:
        raise DeviceError(f"{shell.spec}: cannot remove {folder}: {one_line(done.stderr)}")
    return folder


def one_line(text: str) -> str:
    """Return the end of a text from a device as one line of printable characters."""
    printable = "".join(character if character.isprintable() else " " for character in text[-_MAX_MESSAGE:])
    return " ".join(printable.split())[-300:]


def _words_of(exit_code: int) -> str:
    return f"exit code {exit_code}" if exit_code >= 0 else "killed"
