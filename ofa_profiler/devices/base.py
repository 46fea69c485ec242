"""What a device is: something that takes a kit and runs the agent on it.

A subclass moves files and starts processes. This module interprets the output of the agent, once for all subclasses,
and trusts nothing that a device sends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType

from ofa_profiler.base.retry import retry
from ofa_profiler.errors import DeviceError, TransientDeviceError, TransientError, UsageError
from ofa_profiler.protocol import records
from ofa_profiler.protocol.lines import MAX_LINE, Garbled, parse_line
from ofa_profiler.protocol.records import Record, read_record

_MAX_STDERR = 300
#: Other programs on the device may print this many bytes between two lines of the agent.
_MAX_NOISE_BYTES = 1 << 20


class Agent(ABC):
    """A running agent. It ends when its stdin ends, so it does not outlive its host."""

    @abstractmethod
    def read_line(self, limit: int) -> bytes:
        """Return the next line of its stdout, at most `limit` bytes of it; empty at the end."""

    @abstractmethod
    def finish(self) -> tuple[str, str]:
        """Wait for its end. Return how it ended, in words, and the end of its stderr."""

    @abstractmethod
    def close(self) -> None:
        """End the agent if it still runs, and wait until it has ended."""


class Device(ABC):
    """A device that can be measured. Use it in a `with`.

    Every method raises `DeviceError` when the device fails, or `TransientDeviceError` when another attempt may succeed.
    """

    #: The name of the device, as in `--device`.
    spec: str
    #: Pauses between attempts after transient errors. All of them without progress: the device is given up.
    waits_s: Sequence[float] = (1, 2)

    @abstractmethod
    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        """Copy the folder `kit` (if any) to the device and start the agent there with `arguments`.

        The subclass adds `--kit` with the place of the folder on the device, and `--attached`.
        """

    def close(self) -> None:  # noqa: B027 (a device that holds nothing open has nothing to close)
        """Close the connection to the device."""

    def remove(self) -> str:
        """Remove the folder of ofa-profiler from the device, and return its path. Raises `UsageError` without one."""
        raise UsageError(f"device {self.spec}: ofa-profiler keeps no files there, so there is nothing to remove")

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def prepare_runtime(self, runtime: str, at_most: str | None = None) -> str | None:  # noqa: ARG002
        """Make a runtime ready to measure, and return its version; None if it is known only when it measures.

        `at_most`: if the device brings its runtime, no release after this one. Raises `DeviceError` if the runtime
        does not work on the device, `UsageError` if another release was asked for than the device can have.
        """
        return None

    @property
    def chooses_release(self) -> bool:
        """Whether the runtime is brought to the device, so that there is a choice of its release."""
        return False

    def describe(self) -> records.Device:
        """Return the properties of the device, without measuring."""
        return retry(self._describe, self.waits_s, before_retry=self._report_retry)

    def _report_retry(self, error: TransientError, _progress: bool) -> None:
        self._report(f"{error}; trying again")

    def _report(self, line: str) -> None:  # noqa: B027 (most devices have nobody to report to)
        """Show a line to the user."""

    def _describe(self) -> records.Device:
        with closing(self.start(None, ["--describe"])) as agent:
            while isinstance(record := _next_record(agent), records.Alive | records.Waiting):
                pass
            if isinstance(record, records.Fatal):
                raise self._error(record)
            if not isinstance(record, records.Device):
                raise TransientDeviceError(f"device {self.spec}: {_early_end(agent)}")
            return record

    def measure_kit(self, kit: Path, seen: int, visits: int | None = None) -> Generator[Record, None, None]:
        """Run the agent on a kit and yield its records as they come, without the first `seen` lines.

        The last record is an `End`, unless the agent pauses with some of its work undone: after the round with that
        many `visits`. The next call goes on, as after an interruption. Raises `UsageError` for what this device cannot
        do, and `TransientDeviceError` if the agent ends before that record.
        """
        arguments = ["--seen", str(seen), *([] if visits is None else ["--pause-after", str(visits)])]
        with closing(self.start(kit, arguments)) as agent:
            ended = has_visits = False
            while (record := _next_record(agent)) is not None:
                if isinstance(record, records.Fatal):
                    raise self._error(record)
                if isinstance(record, records.Alive):
                    continue
                if isinstance(record, records.Paused):
                    ended = visits is not None and has_visits  # else it would go on like this for ever
                    continue
                ended = isinstance(record, records.End)
                has_visits = has_visits or isinstance(record, records.ModelRun)
                yield record
            if not ended:
                raise TransientDeviceError(f"device {self.spec}: {_early_end(agent)}")

    def _answer_of(self, agent: Agent) -> records.RuntimeLoaded | records.Fatal:
        """Return the answer of an agent that checks a runtime. Raises `TransientDeviceError` if it ends before."""
        while isinstance(record := _next_record(agent), records.Alive | records.Waiting):
            pass
        if not isinstance(record, records.RuntimeLoaded | records.Fatal):
            raise TransientDeviceError(f"device {self.spec}: {_early_end(agent)}")
        return record

    def _error(self, record: records.Fatal) -> DeviceError | UsageError:
        transient = TransientDeviceError if record.transient else DeviceError
        kind = UsageError if record.usage else transient
        return kind(f"device {self.spec}: {record.error}")


def _next_record(agent: Agent) -> Record | None:
    """Return the next record of an agent; None at the end of its output. A last line without a line end is dropped.

    Login scripts may leave programs behind that print now and then. Their lines are skipped. If such output is mixed
    into a record, the record is lost here; the device still has it and sends it with the next attempt.
    """
    skipped = 0
    while (line := agent.read_line(MAX_LINE)).endswith(b"\n") or len(line) >= MAX_LINE:
        try:
            return read_record(parse_line(line))
        except Garbled as error:  # noqa: PERF203 (speed does not matter here)
            skipped += len(line)
            if b'"type":' in line or skipped > _MAX_NOISE_BYTES:
                raise TransientDeviceError(f"a line of the agent cannot be read: {error}") from None
        except ValueError as error:
            raise DeviceError(f"a line of the agent cannot be read: {error}") from None
    return None


def _early_end(agent: Agent) -> str:
    ended, stderr = agent.finish()
    stderr = " ".join(stderr.split())[-_MAX_STDERR:]
    return f"the agent ended before it was finished ({ended})" + (f": {stderr}" if stderr else "")
