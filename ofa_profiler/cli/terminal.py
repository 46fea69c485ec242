"""A command and its terminal: exit codes, signals, messages and progress on stderr."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from ofa_profiler.base.plugins import load_plugins
from ofa_profiler.base.units import format_duration_ms
from ofa_profiler.errors import OfaError

INTERRUPTED, TERMINATED = 130, 143  # what shells return for SIGINT and SIGTERM
_EVERY_S = 15.0


class _Terminated(KeyboardInterrupt):
    """SIGTERM, to be handled like Ctrl-C."""


def run_command(
    name: str, command: Callable[[], int], *, interrupted: Callable[[], str] = lambda: "interrupted"
) -> int:
    """Run `command` -> its exit code, or that of its error, which is printed as one line on stderr.

    `interrupted` gives the message for Ctrl-C and SIGTERM: what is kept, and how to resume.
    """

    def terminate(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        load_plugins()
        return command()
    except OfaError as error:
        say(f"{name}: {' '.join(str(error).split())}")
        return error.exit_code
    except KeyboardInterrupt as stop:
        say(f"{name}: {interrupted()}")
        return TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has closed the pipe; keep the interpreter from reporting it
        return 1


def say(line: str) -> None:
    """Print a line to stderr, without control characters: a device may have sent part of it."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    print(line, file=sys.stderr, flush=True)


#: `show(phase, done, total, left_s, words)`: `left_s` is an estimate or None, `words` add details.
Show = Callable[[str, int, int, float | None, str], None]


@contextmanager
def progress_bar() -> Iterator[Show]:
    """A progress bar on stderr with the estimated time left; without a terminal, a line every 15 s."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[words]}", style="dim"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as bar:
        tasks = {}

        def show(phase: str, done: int, total: int, left_s: float | None, words: str) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=total, words="")
            bar.update(tasks[phase], completed=done, total=total, words=_words(left_s, words))

        yield show


def _lines() -> Show:
    told = time.monotonic()

    def show(phase: str, done: int, total: int, left_s: float | None, words: str) -> None:
        nonlocal told
        if time.monotonic() - told >= _EVERY_S:
            told = time.monotonic()
            say(f"{phase}: {done} of {total}  {_words(left_s, words)}".rstrip())

    return show


def _words(left_s: float | None, words: str) -> str:
    left = f"about {format_duration_ms(max(left_s, 1) * 1e3)} left" if left_s is not None else ""
    return ", ".join(part for part in (left, words) if part)
