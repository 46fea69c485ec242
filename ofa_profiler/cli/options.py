"""Options that the commands share; errors are one line."""

from __future__ import annotations

import argparse
import getpass
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ofa_profiler.base.releases import check_release, release_of
from ofa_profiler.base.version import __version__
from ofa_profiler.cli.lending import add_lending_options
from ofa_profiler.cli.terminal import say
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.spaces import space_names

if TYPE_CHECKING:
    from ofa_profiler.devices.options import DeviceOptions
    from ofa_profiler.protocol.settings import Settings
    from ofa_profiler.tables.mixed import AnyTable


class Parser(argparse.ArgumentParser):
    """An argument parser that reports an error in one line, without the usage text."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        # "-5ms" is the value of an option, which refuses it with its own words, and no option itself.
        self._negative_number_matcher = re.compile(r"-\.?[0-9]")
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} ({self.prog} --help lists the options)")


def space_words() -> str:
    """The values of `--space`, in words."""
    return f"{', '.join(space_names())}, or one of your own, package.module:NAME"


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


def threads_list(text: str) -> tuple[int, ...]:
    """For `type=` of an option: `1,2,4`, each number once."""
    found = tuple(positive_integer(part.strip()) for part in text.split(","))
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r:.60} has a number twice: give each once")
    return found


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for reaching and using a device; `device_options` reads them."""
    group = parser.add_argument_group("device")
    group.add_argument(
        "--accept-host-key",
        metavar="SHA256:...",
        help="trust this host key from now on (the error message shows it; compare it with the device)",
    )
    group.add_argument(
        "--runtime-on-board",
        metavar="HOW",
        choices=("push", "system"),
        default="push",
        help="push copies the runtime to the board, system uses the installed one (default: %(default)s)",
    )
    group.add_argument(
        "--runtime-version",
        metavar="X.Y[.Z]",
        type=check_release,
        help="release of the runtime to copy; X.Y is its newest X.Y.Z (default: this machine's release, or that of "
        "the table, if there is a wheel of it for the board; else the newest)",
    )
    group.add_argument(
        "--folder-on-board",
        metavar="DIR",
        help="boards over ssh: folder for runtime, models and results (default: ~/.ofa-profiler)",
    )
    group.add_argument("--cores", metavar="N[,N...]", type=_cores, help="cores to measure on (default: the fastest)")
    group.add_argument(
        "--phone-bundle",
        metavar="FILE",
        type=Path,
        help="Python for phones, a file from the cache of another machine (default: download it once)",
    )
    group.add_argument(
        "--benchmark-model",
        metavar="FILE",
        type=Path,
        help="phones: measure TFLite models with Google's benchmark_model instead of Python",
    )
    add_lending_options(group)


def device_options(
    arguments: argparse.Namespace, settings: Settings | None = None, table: AnyTable | None = None
) -> DeviceOptions:
    """The device options, checked against `settings` if given. Raises `UsageError`.

    For a measurement that is compared with `table`, a runtime that is brought is the table's release.
    """
    from ofa_profiler.devices.options import DeviceOptions

    if arguments.benchmark_model is not None:
        if settings is not None:
            _check_benchmark_settings(settings)
        if not arguments.benchmark_model.is_file():
            raise InputFileError(arguments.benchmark_model, "no such file")

    asks = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    return DeviceOptions(
        accept_host_key=arguments.accept_host_key,
        runtime_on_board=arguments.runtime_on_board,
        runtime_version=arguments.runtime_version,
        like_release=None if table is None else release_of(table.metadata.get("runtime_version")),
        folder_on_board=arguments.folder_on_board,
        cores=arguments.cores,
        phone_bundle=arguments.phone_bundle,
        benchmark_model=arguments.benchmark_model,
        tell=say,
        ask_password=getpass.getpass if asks else None,
    )


def _check_benchmark_settings(settings: Settings) -> None:
    from ofa_profiler.devices.android.benchmark_model import check_settings

    check_settings(settings.target.runtime, settings.provider)


def refused_by_options(arguments: argparse.Namespace, settings: Settings) -> str | None:
    """Why the device options exclude these settings; None if they do not. Raises `UsageError` with a reason, too."""
    if arguments.benchmark_model is not None:
        _check_benchmark_settings(settings)
    if arguments.cores is not None and settings.threads > len(arguments.cores):
        cores = f"{len(arguments.cores)} core{'s' * (len(arguments.cores) > 1)}"
        return f"{settings.threads} threads were requested, but --cores names {cores}"
    return None


def _cores(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of cores like 2,3")
    return tuple(sorted({int(part) for part in parts}))
