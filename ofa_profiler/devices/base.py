"""What a device is: something that takes a kit and runs the agent on it.

A transport moves files and starts processes. What the lines of an agent mean is decided here, once for
all transports; nothing that a device says is trusted.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from ofa_profiler.errors import DeviceError, TransientDeviceError, UsageError
from ofa_profiler.protocol.replay import MAX_LINE, Garbled, Record, parse_record

T = TypeVar("T")

_LAST_WORDS = 300
#: So many bytes between two lines of an agent may be those of others.
_MOST_NOISE = 1 << 20


class Agent(ABC):
    """An agent that runs somewhere. It ends when its stdin does, so a host that dies takes it along."""

    @abstractmethod
    def read_line(self, limit: int) -> bytes:
        """The next line of its stdout, at most `limit` bytes of it; empty at the end."""

    @abstractmethod
    def finish(self) -> tuple[str, str]:
        """Wait for its end -> how it ended, in words, and the end of its stderr."""

    @abstractmethod
    def close(self) -> None:
        """End it, if it still runs, and wait until it has."""


class Device(ABC):
    """A context manager. Every method raises `DeviceError`, or its transient kind, when the device fails."""

    #: As in `--device`.
    spec: str
    #: How long to wait before each further try when one after another has come to nothing.
    waits_s: Sequence[float] = (1, 2)

    @abstractmethod
    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        """Bring the folder `kit` (if any) to the device and start the agent there with `arguments`.

        The transport adds `--kit` with the folder's place on the device, and `--attached`.
        """

    def close(self) -> None:  # noqa: B027 (a device that holds nothing open has nothing to close)
        """Let go of the device."""

    def remove(self) -> str:
        """Take everything off the device that was brought there -> the folder. Raises `UsageError` if nothing is."""
        raise UsageError(f"device {self.spec}: nothing is brought there, so there is nothing to remove")

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def describe(self) -> Record:
        """What the device says about itself, without measuring: a record of type `device`."""
        return self._patiently(self._describe, self.waits_s)

    def _patiently(self, act: Callable[[], T], waits_s: Sequence[float]) -> T:
        """Do what a second try may cure, with `waits_s` before each further one."""
        for wait_s in waits_s:
            try:
                return act()
            except TransientDeviceError as error:  # noqa: PERF203 (it is the point)
                self._say(f"{error}; trying again")
                time.sleep(wait_s)
        return act()

    def _say(self, line: str) -> None:  # noqa: B027 (most have nobody to tell)
        """Tell people."""

    def _describe(self) -> Record:
        with closing(self.start(None, ["--describe"])) as agent:
            record = _next_record(agent)
            if record is None or record["type"] != "device":
                raise TransientDeviceError(f"{self.spec}: {_why_it_ended(agent)}")
            return record

    def measure_kit(self, kit: Path, seen: int) -> Generator[Record, None, None]:
        """Run the agent on a kit and give its records as they come, without the first `seen` lines.

        The last record is of type `end`; whatever else happens is an error: `UsageError` for what this
        device cannot do, `TransientDeviceError` when the agent is gone before its end.
        """
        with closing(self.start(kit, ["--seen", str(seen)])) as agent:
            ended = False
            while (record := _next_record(agent)) is not None:
                if record["type"] == "fatal":
                    transient = TransientDeviceError if record.get("transient") is True else DeviceError
                    kind = UsageError if record.get("usage") is True else transient
                    raise kind(f"device {self.spec}: {record.get('error')}")
                if record["type"] == "alive":
                    continue
                ended = record["type"] == "end"
                yield record
            if not ended:
                raise TransientDeviceError(f"device {self.spec}: {_why_it_ended(agent)}")


def _next_record(agent: Agent) -> Record | None:
    """The next record of an agent; None at the end of its output (a line without an end was cut off).

    Login scripts leave programs behind that print now and then. Their lines are skipped. One that has a record
    in it as well may have cost us that; the device still has it, so it comes again with the next try.
    """
    skipped = 0
    while (line := agent.read_line(MAX_LINE)).endswith(b"\n") or len(line) >= MAX_LINE:
        try:
            return parse_record(line)
        except Garbled as error:  # noqa: PERF203 (and neither is this fast)
            skipped += len(line)
            if b'"type":' in line or skipped > _MOST_NOISE:
                raise TransientDeviceError(f"the agent wrote a line that cannot be read: {error}") from None
        except ValueError as error:
            raise DeviceError(f"the agent wrote a line that cannot be read: {error}") from None
    return None


def _why_it_ended(agent: Agent) -> str:
    ended, words = agent.finish()
    words = " ".join(words.split())[-_LAST_WORDS:]
    return f"the agent stopped before it was done ({ended})" + (f": {words}" if words else "")
