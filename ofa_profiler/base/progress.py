"""Progress reports: the value, and the type of functions that receive it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """The progress of one phase."""

    #: The current task: `export`, `measure`, `download`, `train`, ...
    phase: str
    done: int
    #: None if it is unknown.
    total: int | None
    #: Estimated seconds left; None if unknown.
    left_s: float | None = None
    #: Details for the user.
    words: str = ""
    #: The reason for waiting; empty if there is none.
    waiting: str = ""


#: Receives the progress of a call, in the thread of the call. An exception that it raises ends the call.
Reporter = Callable[[Progress], None]


def report(
    reporter: Reporter | None, phase: str, done: int, total: int | None, left_s: float | None = None, words: str = ""
) -> None:
    """Report progress, if there is a reporter."""
    if reporter is not None:
        reporter(Progress(phase, done, total, left_s, words))
