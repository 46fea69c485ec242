"""A device that other processes reach: jobs of a `concurrent.futures.Executor` measure on it, one after the other.

    with ProcessPoolExecutor(1) as executor:
        profile(ElsewhereDevice("adb:R58M", executor), "cifar-mbv3", out="tables")

A job is one connection: it takes a kit and gives back the records up to the end of a round. The journal stays here, so
a process or host that dies loses one job, and its executor or the next attempt repeats that.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_profiler.base.files import write_bytes
from ofa_profiler.devices.base import Agent, Device
from ofa_profiler.devices.options import DeviceOptions
from ofa_profiler.devices.registry import open_device
from ofa_profiler.errors import DeviceError, OfaError, TransientDeviceError, TransientError, UsageError
from ofa_profiler.protocol import records
from ofa_profiler.protocol.kit import RESULTS_FILE

if TYPE_CHECKING:
    from concurrent.futures import Executor

#: A job ends after the round with so many visits. A visit takes about 0.1 s.
_VISITS = 300


@dataclass(frozen=True)
class _Kit:
    """The files of a kit by their paths, as hashes. `contents` has those that the process may lack."""

    files: Mapping[str, str]
    contents: Mapping[str, bytes]
    results: bytes


@dataclass(frozen=True)
class _Failure:
    """An error of this project, as plain data: not every error can be pickled."""

    message: str
    is_usage: bool
    is_transient: bool

    def error(self) -> OfaError:
        if self.is_usage:
            return UsageError(self.message)
        return (TransientDeviceError if self.is_transient else DeviceError)(self.message)


@dataclass(frozen=True)
class _Answer:
    """What a job gives: a value, or records; and what it lacks, or how it failed."""

    value: Any = None
    records: tuple[records.Record, ...] = ()
    lacks: frozenset[str] = frozenset()
    failure: _Failure | None = None


class ElsewhereDevice(Device):
    """The device `spec`, as the processes of `executor` reach it. They need this package, and what it needs.

    The executor must run one job at a time. Files among the options must exist where it runs.
    """

    def __init__(self, spec: str, executor: Executor, options: DeviceOptions | None = None) -> None:
        options = DeviceOptions() if options is None else options
        self._device = open_device(spec, options)  # raises for a wrong name; reaches nothing
        self.spec, self.waits_s = self._device.spec, self._device.waits_s
        self._executor, self._options = executor, replace(options, tell=None, ask_password=None)
        self._contents: dict[str, bytes] = {}

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:  # noqa: ARG002
        raise UsageError(f"device {self.spec}: its agent is started by other processes")

    @property
    def chooses_release(self) -> bool:
        return self._device.chooses_release

    def describe(self) -> records.Device:
        described: records.Device = self._asked("describe")
        return described

    def prepare_runtime(self, runtime: str, at_most: str | None = None) -> str | None:
        release: str | None = self._asked("prepare_runtime", runtime, at_most)
        return release

    def remove(self) -> str:
        return str(self._asked("remove"))

    def measure_kit(self, kit: Path, seen: int, visits: int | None = None) -> Generator[records.Record, None, None]:
        """As that of every device, but it pauses after some rounds."""
        visits = _VISITS if visits is None else visits
        paths = {path.relative_to(kit).as_posix(): path for path in sorted(kit.rglob("*")) if path.is_file()}
        found = paths.pop(RESULTS_FILE, None)
        hashes = {name: _hash(path.read_bytes()) for name, path in paths.items()}
        packed = _Kit(hashes, {}, b"" if found is None else found.read_bytes())
        answer = self._answer(_measure, packed, seen, visits)
        if answer.lacks:
            lacking = {hashes[name]: path.read_bytes() for name, path in paths.items() if hashes[name] in answer.lacks}
            answer = self._answer(_measure, replace(packed, contents=lacking), seen, visits)
        if answer.lacks:  # another process has got the second job
            contents = {hashes[name]: path.read_bytes() for name, path in paths.items()}
            answer = self._answer(_measure, replace(packed, contents=contents), seen, visits)
        yield from answer.records
        if answer.failure is not None:
            raise answer.failure.error()

    def _asked(self, method: str, *arguments: Any) -> Any:
        answer = self._answer(_ask, method, *arguments)
        if answer.failure is not None:
            raise answer.failure.error()
        return answer.value

    def _answer(self, job: Callable[..., _Answer], *arguments: Any) -> _Answer:
        from concurrent.futures import CancelledError

        try:
            future = self._executor.submit(job, self.spec, self._options, *arguments)
            try:
                return future.result()
            finally:
                future.cancel()
        except (Exception, CancelledError) as error:  # the device's own errors are in the answer
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise TransientDeviceError(f"device {self.spec}: the process that reaches it failed: {reason}") from error


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- in the process that reaches the device -----------------------------------------------------------------


@cache
def _store() -> tempfile.TemporaryDirectory[str]:
    """The files of kits that this process has got, by hash; removed when it ends."""
    return tempfile.TemporaryDirectory(prefix="ofa-profiler-kits-")


def _ask(spec: str, options: DeviceOptions, method: str, *arguments: Any) -> _Answer:
    try:
        with open_device(spec, options) as device:
            return _Answer(getattr(device, method)(*arguments))
    except OfaError as error:
        return _Answer(failure=_failure(error))


def _measure(spec: str, options: DeviceOptions, kit: _Kit, seen: int, visits: int) -> _Answer:
    store = Path(_store().name)
    for name, content in kit.contents.items():
        write_bytes(store / name, content)
    lacks = frozenset(name for name in kit.files.values() if not (store / name).exists())
    if lacks:
        return _Answer(lacks=lacks)
    found: list[records.Record] = []
    try:
        with tempfile.TemporaryDirectory(prefix="ofa-profiler-") as folder, open_device(spec, options) as device:
            for path, name in kit.files.items():
                write_bytes(Path(folder) / path, (store / name).read_bytes())
            if kit.results:
                write_bytes(Path(folder) / RESULTS_FILE, kit.results)
            with closing(device.measure_kit(Path(folder), seen, visits)) as measured:
                found.extend(measured)
    except OfaError as error:
        return _Answer(records=tuple(found), failure=_failure(error))
    return _Answer(records=tuple(found))


def _failure(error: OfaError) -> _Failure:
    return _Failure(str(error), isinstance(error, UsageError), isinstance(error, TransientError))
