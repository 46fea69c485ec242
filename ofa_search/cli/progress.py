"""The progress of several searches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ofa_profiler.base.progress import report
from ofa_profiler.cli.terminal import progress_bar


@contextmanager
def counting(total: int, what: str = "search") -> Iterator[Callable[[int], None]]:
    """A function that shows how many of `total` searches are done, and for how long the others will go on."""
    began = time.monotonic()
    with progress_bar() as reporter:

        def show(done: int) -> None:
            left_s = (time.monotonic() - began) / done * (total - done) if done else None
            report(reporter, what, done, total, left_s)

        yield show
