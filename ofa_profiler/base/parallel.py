"""Runs several jobs at the same time, one thread per job. The jobs mostly wait for devices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from ofa_profiler.errors import OfaError

T = TypeVar("T")

#: A job must call this regularly. It raises `KeyboardInterrupt` if all jobs must stop.
Check = Callable[[], None]

#: Time for the other jobs to stop after an interruption.
_STOP_TIMEOUT_S = 5.0


def run_all(jobs: Mapping[str, Callable[[Check], T]]) -> dict[str, T | OfaError]:
    """Run `jobs` in parallel. Return the result of each, or its `OfaError`, in the order of `jobs`.

    An `OfaError` of one job does not stop the others. Any other exception of a job is raised. After an interruption,
    all jobs are asked to stop, with a short timeout. A single job runs in the calling thread.
    """
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise KeyboardInterrupt

    threads = {name: _Job(job, check) for name, job in jobs.items()}
    if len(jobs) == 1:
        return {name: thread.work() for name, thread in threads.items()}
    for thread in threads.values():
        thread.start()
    try:
        for thread in threads.values():
            thread.join()
    except BaseException:
        stop.set()
        for thread in threads.values():
            thread.join(_STOP_TIMEOUT_S)
        raise
    return {name: thread.outcome() for name, thread in threads.items()}


class _Job(threading.Thread, Generic[T]):
    def __init__(self, job: Callable[[Check], T], check: Check) -> None:
        super().__init__(daemon=True)
        self._job, self._check = job, check
        self._outcome: T | OfaError | None = None
        self._broken: BaseException | None = None

    def work(self) -> T | OfaError:
        try:
            return self._job(self._check)
        except OfaError as error:
            return error

    def run(self) -> None:
        try:
            self._outcome = self.work()
        except BaseException as error:
            self._broken = error

    def outcome(self) -> T | OfaError:
        if self._broken is not None:
            raise self._broken
        return self._outcome  # type: ignore[return-value]
