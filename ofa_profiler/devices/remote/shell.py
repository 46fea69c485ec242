"""What a way to a device must offer, and nothing more: start a POSIX command there and talk to it.

    Shell     open a command line on the device        (devices/ssh.py, devices/adb.py)
    Process   what runs there: bytes in, bytes out, how it ended

Everything else is here, once for all ways: quoting, telling a program's output from what login scripts
print before it, lines, and running a command to its end. Nothing else in the package builds a command
line for a device.
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

#: A device that says nothing for this long is gone. What we run there gives signs of life more often.
SILENCE_S = 45.0
#: Login scripts may print this much before our command starts.
_MOST_GREETING = 1 << 20
_MOST_OUTPUT = 64 << 20
_LAST_WORDS = 4096


def command_line(argv: Sequence[str]) -> str:
    """`argv` as one line for a POSIX shell that gives every argument to the program unchanged."""
    if any("\0" in argument for argument in argv):
        raise DeviceError("an argument for the device holds a zero byte")
    return shlex.join(argv)


def for_any_login_shell(line: str) -> str:
    """A command line that login shells which are none of POSIX give to one that is, with nothing read into it.

    Between single quotes csh reads `!` and ends at a line's end, and fish reads backslashes.
    """
    if not any(character in line for character in "!\n\\"):
        return line
    coded = "".join(f"\\0{ord(character):03o}" if character in "!\n\\'" else character for character in line)
    return f"""exec sh -c 'eval "$(printf %b "$1")"' sh '{coded}'"""


class Silence(TransientDeviceError):
    """A program on the device says nothing for too long; the link may be there or not."""


class Process(ABC):
    """A process on the device. Methods raise `TransientDeviceError` when the way to the device is lost."""

    @abstractmethod
    def read(self, size: int, timeout_s: float) -> bytes:
        """At most `size` bytes of its stdout, as soon as there are any; empty at the end.

        Raises `Silence` after `timeout_s` without any.
        """

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Give all of `data` to its stdin."""

    @abstractmethod
    def close_input(self) -> None:
        """End its stdin."""

    @abstractmethod
    def wait(self) -> int:
        """Its exit code, when its stdout has ended; minus the number of a signal, or -1, if it was killed."""

    @abstractmethod
    def last_words(self) -> str:
        """The end of its stderr so far (of stdout, where the two cannot be told apart)."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it, ending its stdin and stdout. Never raises."""


class Lines:
    """The stdout of a process, line by line."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._buffer = bytearray()
        self._ended = False

    def read_line(self, limit: int) -> bytes:
        """The next line with its end, or its first `limit` bytes; at the end what is left, then nothing."""
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
        """At most `size` bytes, as soon as there are any; empty at the end."""
        if not self._buffer:
            return b"" if self._ended else self._process.read(size, timeout_s)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


@dataclass(frozen=True)
class Running:
    """A process and what it writes, from the first byte of its own on."""

    process: Process
    output: Lines


@dataclass(frozen=True)
class Completed:
    """How a command ended, and what it wrote."""

    exit_code: int
    stdout: bytes
    stderr: str


class Readable(Protocol):
    """Bytes that can be read once, from begin to end."""

    def read(self, size: int = ..., /) -> bytes: ...


class Shell(ABC):
    """A connection to a device. Methods raise `DeviceError`, or its transient kind."""

    #: As in `--device`.
    spec: str

    @abstractmethod
    def open(self, line: str) -> Process:
        """Start a command line, in the language of a POSIX shell."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the device. Never raises."""

    def spawn(self, argv: Sequence[str]) -> Running:
        """Start a program. What login scripts print before it is dropped."""
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
                return output.read_line(_MOST_GREETING)
            except Silence as error:
                raise Silence(f"{error}, and no command begins: does a login script there wait for input?") from None

        skipped, said = 0, b""
        while not (line := next_line()).rstrip().endswith(mark):
            skipped += len(line)
            if not line:
                words = one_line(process.last_words() or said.decode("utf-8", "replace")) or "it says nothing"
                raise TransientDeviceError(
                    f"{self.spec}: the command shell ended ({_words_of(process.wait())}): {words}"
                )
            said = line
            if skipped > _MOST_GREETING:
                raise DeviceError(f"{self.spec}: its login scripts print without end")

    def run(self, argv: Sequence[str], data: bytes | Readable = b"") -> Completed:
        """Run a program with `data` as its stdin, to its end.

        It may be silent for `SILENCE_S` at most. A link that breaks on the way is an error, never an exit code.
        """
        running = self.spawn(argv)
        source = io.BytesIO(data) if isinstance(data, bytes) else data
        feeder = _Feeder(running.process, source)
        feeder.start()
        try:
            stdout = bytearray()
            while chunk := running.output.read(1 << 16):
                stdout += chunk
                if len(stdout) > _MOST_OUTPUT:
                    raise DeviceError(f"{self.spec}: a command prints without end")
            completed = Completed(running.process.wait(), bytes(stdout), running.process.last_words())
        finally:
            running.process.close()
            feeder.join()
        if feeder.error is not None:
            error = feeder.error
            raise UsageError(f"{self.spec}: cannot read what is sent there: {error.filename}: {error.strerror}")
        return completed


class _Feeder(threading.Thread):
    """Gives a process its stdin. Errors of the source are kept; those of the process it says itself."""

    def __init__(self, process: Process, source: Readable) -> None:
        super().__init__(daemon=True)
        self._process, self._source = process, source
        self.error: OSError | None = None

    def run(self) -> None:
        # A program that ends early does not read on; how it ended says why, and so does a link that broke.
        with contextlib.suppress(DeviceError):
            try:
                shutil.copyfileobj(self._source, _Input(self._process), 1 << 18)
            except OSError as error:
                self.error = error
            self._process.close_input()


class _Input(io.RawIOBase):
    """The stdin of a process as a file."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._process.write(data)
        return len(data)


def one_line(text: str) -> str:
    """Words of a device as one line of bounded length, with nothing in it that a terminal would obey."""
    printable = "".join(character if character.isprintable() else " " for character in text[-_LAST_WORDS:])
    return " ".join(printable.split())[-300:]


def _words_of(exit_code: int) -> str:
    return f"exit code {exit_code}" if exit_code >= 0 else "killed"
