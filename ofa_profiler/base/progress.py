"""The progress of everything that takes a while: one value, and one kind of function that receives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How much of a phase is done."""

    #: What is being done: `export`, `measure`, `download`, `train`, ...
    phase: str
    done: int
    #: None if it is unknown.
    total: int | None
    #: An estimate of the seconds left, None if there is none.
    left_s: float | None = None
    #: Details for the user.
    words: str = ""
    #: Why nothing happens at the moment; empty while work is being done.
    waiting: str = ""


#: Receives the progress of a call, in the thread of the call. An exception that it raises ends the call.
Reporter = Callable[[Progress], None]


def report(
    reporter: Reporter | None, phase: str, done: int, total: int | None, left_s: float | None = None, words: str = ""
) -> None:
    """Report progress, if there is a reporter."""
    if reporter is not None:
        reporter(Progress(phase, done, total, left_s, words))
