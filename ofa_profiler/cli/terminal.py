"""The terminal side of commands: exit codes, signals, messages and progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from ofa_profiler.base.plugins import load_plugins
from ofa_profiler.base.progress import Progress, Reporter
from ofa_profiler.base.units import format_duration_ms
from ofa_profiler.cli.interruption import Interruption
from ofa_profiler.errors import OfaError

_LINE_EVERY_S = 15.0
_BAR_WIDTH = 10  # leaves room for all words in 80 columns


def run_command(
    name: str, command: Callable[[], int], *, interrupted: Callable[[], str] = lambda: "interrupted"
) -> int:
    """Run `command` and return its exit code. An `OfaError` is printed as one line on stderr, and gives its exit code.

    `interrupted` returns the message for Ctrl-C and other signals: what is kept, and how to resume. Empty: no message.
    """
    with Interruption() as stop:
        try:
            load_plugins()
            return command()
        except OfaError as error:
            with suppress(OSError):
                say(f"{name}: {' '.join(str(error).split())}")
            if stop.number is None:
                return error.exit_code
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:
            sys.stderr.close()  # the reader has closed the pipe; this prevents a message of the interpreter
            return 1
        except Exception:
            if stop.number is None:
                raise  # else a library has turned the interruption into an error of its own
        if message := interrupted():
            with suppress(OSError):  # the terminal may be closed
                say(f"{name}: {message}")
        return stop.exit_code


def say(line: str) -> None:
    """Print a line to stderr. Control characters are replaced, because the text may come from a device."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    print(line, file=sys.stderr, flush=True)


@contextmanager
def progress_bar() -> Iterator[Reporter]:
    """Show progress as a bar on stderr with the estimated time left. Without a terminal: as a line every 15 s.

    A reason for waiting is a separate line.
    """
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.table import Column

    columns = (
        rich_progress.TextColumn("{task.description}", table_column=Column(overflow="fold")),
        rich_progress.BarColumn(bar_width=_BAR_WIDTH),
        rich_progress.TextColumn("{task.completed}/{task.total}"),
        rich_progress.TimeElapsedColumn(),
        # A narrow terminal wraps the words instead of cutting them.
        rich_progress.TextColumn("{task.fields[words]}", style="dim", table_column=Column(overflow="fold")),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as bar:
        tasks = {}

        def show(progress: Progress) -> None:
            _say_waiting(progress)
            if progress.phase not in tasks:
                tasks[progress.phase] = bar.add_task(progress.phase, total=progress.total, words="")
            task, words = tasks[progress.phase], _words(progress)
            bar.update(task, completed=progress.done, total=progress.total, words=words)

        yield show


def _lines() -> Reporter:
    last_s = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal last_s
        _say_waiting(progress)
        if time.monotonic() - last_s >= _LINE_EVERY_S:
            last_s = time.monotonic()
            of_total = f" of {progress.total}" if progress.total is not None else ""
            say(f"{progress.phase}: {progress.done}{of_total}  {_words(progress)}".rstrip())

    return show


def labelled(reporter: Reporter, label: str) -> Reporter:
    """Return a reporter that adds `label` to the phase, for one of several devices."""

    def show(progress: Progress) -> None:
        waiting = progress.waiting and f"{label}{progress.waiting}"
        reporter(replace(progress, phase=f"{label}{progress.phase}", waiting=waiting))

    return show


def _say_waiting(progress: Progress) -> None:
    if progress.waiting:
        say(f"note: {progress.waiting}")


def _words(progress: Progress) -> str:
    left_s = progress.left_s
    left = f"about {format_duration_ms(max(left_s, 1) * 1e3)} left" if left_s is not None else ""
    return ", ".join(part for part in (left, progress.words) if part)
