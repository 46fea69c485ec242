"""What the commands share: options that are refused in one line, exit codes, progress for people."""

from __future__ import annotations

import argparse
import getpass
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from ofa_profiler import __version__
from ofa_profiler.errors import InputFileError, OfaError, UsageError
from ofa_profiler.units import format_duration_ms

if TYPE_CHECKING:
    from ofa_profiler.devices.options import DeviceOptions
    from ofa_profiler.settings import Settings

INTERRUPTED, TERMINATED = 130, 143  # as shells give for SIGINT and SIGTERM
_EVERY_S = 15.0


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and no page of usage before it."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help lists the options)")


class _Terminated(KeyboardInterrupt):
    """SIGTERM, to be handled like Ctrl-C."""


def run_command(
    name: str, command: Callable[[], int], *, interrupted: Callable[[], str] = lambda: "interrupted"
) -> int:
    """Run `command` -> its exit code, or that of its error, which is told in one line on stderr.

    `interrupted` gives the words for Ctrl-C and SIGTERM: what is kept, and how to go on.
    """

    def terminate(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        return command()
    except OfaError as error:
        say(f"{name}: {' '.join(str(error).split())}")
        return error.exit_code
    except KeyboardInterrupt as stop:
        say(f"{name}: {interrupted()}")
        return TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has left; the interpreter would complain about it
        return 1


def say(line: str) -> None:
    """A line for people, on stderr. What a device said may stand in it: terminals obey control characters."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    print(line, file=sys.stderr, flush=True)


def positive_integer(text: str) -> int:
    """For `type=` of an option."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1000000")
    return int(text)


def whole_number(text: str) -> int:
    """For `type=` of an option: 0 or more, such as a seed."""
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """The options about how a device is reached and used; `device_options` reads them."""
    group = parser.add_argument_group("reaching the device")
    group.add_argument(
        "--accept-host-key",
        metavar="SHA256:...",
        help="trust this host key from now on (the refusal shows it; compare it on the device)",
    )
    group.add_argument(
        "--runtime-on-board",
        metavar="HOW",
        choices=("push", "system"),
        default="push",
        help="push brings the runtime to the board, system uses what is installed there (default: %(default)s)",
    )
    group.add_argument("--cores", metavar="N[,N...]", type=_cores, help="measure on these cores (default: fastest)")
    group.add_argument(
        "--phone-bundle",
        metavar="FILE",
        type=Path,
        help="the Python for phones, as a file from another machine's cache (default: fetched once)",
    )
    group.add_argument(
        "--benchmark-model",
        metavar="FILE",
        type=Path,
        help="measure TFLite models with this program of Google's, not with Python (phones)",
    )


def device_options(arguments: argparse.Namespace, settings: Settings | None = None) -> DeviceOptions:
    """What was asked of the device, which is to measure with `settings`, if given. Raises `UsageError`."""
    from ofa_profiler.devices.options import DeviceOptions

    if arguments.benchmark_model is not None:
        _check_benchmark_model(arguments.benchmark_model, settings)

    asks = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    return DeviceOptions(
        accept_host_key=arguments.accept_host_key,
        runtime_on_board=arguments.runtime_on_board,
        cores=arguments.cores,
        phone_bundle=arguments.phone_bundle,
        benchmark_model=arguments.benchmark_model,
        tell=say,
        ask_password=getpass.getpass if asks else None,
    )


def _check_benchmark_model(program: Path, settings: Settings | None) -> None:
    from ofa_profiler.devices.benchmark_runner import check_settings

    if settings is not None:
        check_settings(settings.runtime, settings.provider)
    if not program.is_file():
        raise InputFileError(program, "there is no such program")


def _cores(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of cores like 2,3")
    return tuple(sorted({int(part) for part in parts}))


#: `show(phase, done, total, left_s, words)`: `left_s` is an estimate or None, `words` say more.
Show = Callable[[str, int, int, float | None, str], None]


@contextmanager
def progress_bar() -> Iterator[Show]:
    """A progress bar on stderr with an estimate of the time left; a line now and then where there is no terminal."""
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


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few of `names`, and how many more."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
