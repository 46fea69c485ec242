"""Retries after transient errors, for the whole project.

The class of an error determines whether it is retried: a `TransientError` is, all others are final.
`retry` repeats an action after transient errors. `LinkErrors` gives the errors of a device link the right class where
that depends on the history of the link.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from ofa_profiler.errors import DeviceError, TransientDeviceError, TransientError, UsageError

T = TypeVar("T")


def _unknown_position(_error: TransientError) -> float:
    return 0.0


def _no_report(_error: TransientError, _progress: bool) -> None:
    pass


def retry(
    action: Callable[[], T],
    waits_s: Sequence[float],
    *,
    position: Callable[[TransientError], float] = _unknown_position,
    before_retry: Callable[[TransientError, bool], None] = _no_report,
    max_attempts: float = math.inf,
) -> T:
    """Call `action` until it succeeds, and return its result.

    After a `TransientError`, wait for the next of `waits_s` and try again; when all are used, raise the error.
    `position` returns how far the action had come when it failed. A new maximum is progress, and then `waits_s` starts
    again with its first entry. Without any progress (the position is `-math.inf`), the error is raised at once.
    `before_retry` receives the error and whether there was progress.
    """
    furthest, attempts = -math.inf, 0
    waits: Iterator[float] = iter(())
    while True:
        try:
            return action()
        except TransientError as error:
            attempts += 1
            reached = position(error)
            if progress := reached > furthest:
                furthest, waits = reached, iter(waits_s)
            wait_s = next(waits, None)
            if wait_s is None or attempts >= max_attempts:
                raise
            before_retry(error, progress)
        time.sleep(wait_s)


class LinkErrors:
    """Decides from the history of a device link whether its errors are transient.

    A device that has never answered is probably not there, so waiting for it does not help: its errors are final.

    A link without `checksums` can damage a command, which then fails like a wrong command. On such a link an error is
    final only if it occurs twice with the same message.
    """

    def __init__(self, *, checksums: bool) -> None:
        self.checksums = checksums
        #: Whether the device has ever answered. The owner of the link sets it.
        self.was_connected = False
        self._seen: set[str] = set()

    @contextmanager
    def classified(self) -> Iterator[None]:
        """Raise the errors of the block with the class that they have on this link. May be nested."""
        try:
            yield
        except TransientDeviceError as error:
            if self.was_connected:
                raise
            raise DeviceError(str(error)) from None
        except (DeviceError, UsageError) as error:
            message = re.sub(r"\d+", "", str(error))  # numbers vary, for example the free space
            if self.checksums or not self.was_connected or message in self._seen:
                raise
            self._seen.add(message)
            raise TransientDeviceError(str(error)) from error

    def forget(self) -> None:
        """Forget all messages. Call it when the device has worked since."""
        self._seen.clear()
