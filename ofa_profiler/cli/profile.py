"""`ofa-profile`: measure a device and write its latency table."""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, which take a while
    from ofa_profiler.cli.start import end_quietly, leave

    end_quietly()

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_profiler.base.units import parse_duration_ms
from ofa_profiler.cli.lending import lending_of
from ofa_profiler.cli.model_options import add_model_options, check_model_options
from ofa_profiler.cli.options import (
    Parser,
    add_device_options,
    device_options,
    positive_integer,
    refused_by_options,
    space_words,
    threads_list,
)
from ofa_profiler.cli.report import report_table
from ofa_profiler.cli.terminal import run_command, say
from ofa_profiler.devices.registry import device_names
from ofa_profiler.errors import UsageError
from ofa_profiler.protocol.forms import FAST, FORMS_CHOICES
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target
from ofa_profiler.runtimes import runtimes
from ofa_profiler.spaces import SearchSpace, get_space

if TYPE_CHECKING:
    from ofa_profiler.measuring.cells import Cell

PROG = "ofa-profile"
#: The space without `--space`.
DEFAULT_SPACE = "cifar-mbv3"

_DESCRIPTION = """\
Measure every op of a search space on a device. Then measure some whole networks, to fit how ops become networks, and
others to validate it. Write the latency table NAME.csv, its description NAME.json (device, settings, date) and its
journals NAME.jsonl and NAME-networks.jsonl (every sample). After an interruption, run the same command again: it
resumes.
"""

_EXAMPLES = """\
examples:
  ofa-profile --device local --out latency_tables
  ofa-profile --device local --out latency_tables --space ofa-mbv3-w1.2 --resolution 160,192,224
  ofa-profile --device local --space ofa-mbv3-w1.2 --plan
  ofa-profile --device ssh:pi@raspberrypi.local --out latency_tables
  ofa-profile --device ssh:pi@pi5.local --out latency_tables --like latency_tables/pi4.csv    for a tenth of the time
  ofa-profile --device adb:192.168.1.20:5555 --out latency_tables      a phone; --device adb: lists the phones
  ofa-profile --device local --out latency_tables --precision fp32,int8    two tables and their comparison
  ofa-profile --device local --out latency_tables --runtime onnxruntime,litert --threads 1,2    four tables
  ofa-profile --device local --out latency_tables --model net.onnx --shape images=1x3x224x224    your own network
  ofa-profile --kit board-kit --space cifar-mbv3        for a board without a connection
  ofa-profile --import results.jsonl --out latency_tables    make a table of the results from that board

exit codes: 0 done, 2 bad usage or bad input, 4 the device or all ops failed, 130 or 143 interrupted
"""


def _parser() -> Parser:
    parser = Parser(PROG, _DESCRIPTION, _EXAMPLES)
    what = parser.add_argument_group("what to do (--device, --kit or --import)")
    what.add_argument(
        "--device",
        metavar="DEVICE",
        action="append",
        help=f"device to measure, one of {device_names()}; repeat it to measure several devices at the same time",
    )
    what.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="let the workers of this Dask scheduler (tcp://host:8786) reach the devices: each worker with a resource "
        "of the device's name",
    )
    what.add_argument(
        "--kit", metavar="DIR", type=Path, help="write a kit for a board to DIR: models, settings and agent"
    )
    what.add_argument(
        "--wheels",
        metavar="PYTHON",
        help="with --kit: add the runtime for the board's Python, for example aarch64-cp311 (Python 3.11)",
    )
    what.add_argument(
        "--import", dest="results", metavar="RESULTS.jsonl", type=Path, help="make a table from the results of an agent"
    )
    what.add_argument(
        "--remove-from-device", action="store_true", help="remove all files of ofa-profiler from --device, then stop"
    )
    what.add_argument("--out", metavar="DIR", type=Path, help="folder for the table")
    what.add_argument(
        "--name", metavar="NAME", action="append", help="name of the table (default: device and space), per device"
    )
    what.add_argument(
        "--like",
        metavar="TABLE",
        type=Path,
        help="table of a similar device: measure a few ops, and infer the others from it (rows with status inferred)",
    )
    what.add_argument("--fresh", action="store_true", help="measure again, and replace the table when it is complete")
    what.add_argument("--plan", action="store_true", help="show what would be measured and how long, then stop")
    what.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    add_model_options(parser)
    _add_settings(parser)
    add_device_options(parser)
    return parser


def _add_settings(parser: Parser) -> None:
    how = parser.add_argument_group("settings")
    how.add_argument("--space", metavar="NAME", help=f"{space_words()} (default: {DEFAULT_SPACE})")
    how.add_argument(
        "--resolution", metavar="R[,R...]", help="input resolutions in pixels (default: those of the space)"
    )
    how.add_argument(
        "--runtime",
        metavar="NAME[,NAME...]",
        help=f"{', '.join(runtimes())}; lists of runtimes, precisions and threads are measured in turns, a table for "
        "each combination (default: onnxruntime, or those of the --model files)",
    )
    how.add_argument(
        "--precision",
        metavar="P[,P...]",
        help="precision of the models, fp32 or int8 (default: fp32, or that of the --model)",
    )
    how.add_argument(
        "--provider",
        metavar="EP",
        help="execution provider: of onnxruntime, for example CUDAExecutionProvider; of litert, CPU or XNNPACK",
    )
    how.add_argument(
        "--threads",
        metavar="N[,N...]",
        type=threads_list,
        default=(1,),
        help="number of threads, and of cores (default: 1)",
    )
    how.add_argument(
        "--forms",
        choices=FORMS_CHOICES,
        help="fast: try several ways to write each layer, and use the fastest; plain: one way (default: fast)",
    )
    how.add_argument("--batch", metavar="N", type=positive_integer, help="images per inference (default: 1)")
    how.add_argument(
        "--time-limit",
        metavar="T",
        default="12m",
        help="time for all measurements; the first round always completes (default: %(default)s)",
    )
    whether = how.add_mutually_exclusive_group()
    whether.add_argument(
        "--calibrate",
        metavar="N",
        type=positive_integer,
        help="number of whole networks that the latency model is fitted to; 20 more validate it (default: 32)",
    )
    whether.add_argument(
        "--no-calibration",
        dest="calibrate",
        action="store_const",
        const=0,
        help="measure no whole networks: the latency of a network is the sum of its ops, of unknown error",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code (`docs/contracts.md` lists them)."""
    kept = "interrupted"

    def command() -> int:
        nonlocal kept
        arguments = _parser().parse_args(argv)
        _check(arguments)
        if arguments.calibrate and arguments.results:
            raise UsageError("--calibrate needs --device or --kit: the networks of --import are those of its kit")
        if arguments.device and arguments.out:
            kept = "interrupted; the results so far are kept; run the same command again to resume"
        return _dispatch(arguments)

    return run_command(PROG, command, interrupted=lambda: kept)


def _check(arguments: argparse.Namespace) -> None:
    given = [option for option in ("device", "kit", "results") if getattr(arguments, option) is not None]
    if len(given) > 1:
        raise UsageError("--device, --kit and --import exclude each other: give one of them")
    if not given and not arguments.plan:
        raise UsageError("nothing to do: give --device DEVICE, --kit DIR or --import RESULTS.jsonl")
    if arguments.device:
        from ofa_profiler.devices import open_device

        for spec in arguments.device:
            open_device(spec)  # reports a wrong name before any other work
        if len(set(arguments.device)) < len(arguments.device):
            raise UsageError("the same --device is given twice")
    tables = len(arguments.device or [""])
    if arguments.name is not None and (len(arguments.name) != tables or len(set(arguments.name)) != tables):
        raise UsageError(
            f"{len(arguments.name)} --name for {tables} tables, or two equal names: give one --name per table"
        )
    _check_reaching(arguments)
    if arguments.wheels is not None and arguments.kit is None:
        raise UsageError("--wheels needs --kit; devices reached over ssh and adb get the runtime automatically")
    _check_like(arguments)
    if arguments.remove_from_device and not arguments.device:
        raise UsageError("--remove-from-device needs --device DEVICE")
    stops_early = arguments.plan or arguments.remove_from_device or arguments.rewrite
    if arguments.out is None and (arguments.results or (arguments.device and not stops_early)):
        raise UsageError("no folder for the table: give --out DIR")


def _check_reaching(arguments: argparse.Namespace) -> None:
    lending_of(arguments, used=bool(arguments.device))  # raises for a command that cannot be run
    if arguments.dask is not None and (not arguments.device or arguments.remove_from_device or arguments.plan):
        raise UsageError("--dask measures: give --device DEVICE and --out DIR with it")


def _check_like(arguments: argparse.Namespace) -> None:
    if arguments.like is not None and (arguments.kit or arguments.results):
        raise UsageError("--like needs --device: the results of a few ops tell whether more are needed")
    if arguments.like is not None and arguments.calibrate == 0:
        raise UsageError("--like excludes --no-calibration: only whole networks tell whether enough ops are measured")


def _dispatch(arguments: argparse.Namespace) -> int:
    check_model_options(arguments)
    if arguments.model:
        from ofa_profiler.cli.profile_model import profile_models

        return profile_models(PROG, arguments)
    _fill_in(arguments)
    get_space(arguments.space)  # raises for an unknown name; networks in results may be of a user's space
    if arguments.results is not None:
        return _import(arguments)
    if arguments.remove_from_device:
        return _remove(arguments)
    space = _space(arguments)
    cells = _cells(arguments)
    if arguments.plan:
        from ofa_profiler.cli.plan import show_plan

        return show_plan(arguments, space, cells)
    if arguments.kit is not None:
        from ofa_profiler.cli.profile_kits import write_kits

        return write_kits(PROG, arguments, space, cells)
    from ofa_profiler.cli.profile_devices import profile_devices

    return profile_devices(PROG, arguments, space, cells)


def _fill_in(arguments: argparse.Namespace) -> None:
    """The defaults of options that exclude `--model`, or that the model decides."""
    defaults = {"space": DEFAULT_SPACE, "runtime": "onnxruntime", "precision": "fp32", "forms": FAST, "batch": 1}
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)


def _cells(arguments: argparse.Namespace) -> tuple[Cell, ...]:
    """A cell per combination of the lists. Refused at once: what is impossible for all of them."""
    from ofa_profiler.measuring.cells import cells_of, read_list, refuse

    names = read_list(arguments.runtime, "--runtime")
    if len(names) > 1 and arguments.runtime_version is not None:
        raise UsageError("--runtime-version is the release of one runtime: give one --runtime, or omit it")
    settings = Settings(
        Target(batch=arguments.batch),
        provider=arguments.provider,
        time_limit_s=parse_duration_ms(arguments.time_limit, "--time-limit") / 1e3,
    )
    precisions = read_list(arguments.precision, "--precision")
    cells = cells_of(settings, precisions, runtimes=names, threads=arguments.threads)
    if arguments.kit is None and len(cells) > 1:
        cells = refuse(cells, lambda cell: refused_by_options(arguments, cell.settings))
    return cells


def _space(arguments: argparse.Namespace) -> SearchSpace:
    space = get_space(arguments.space)
    if arguments.resolution is None:
        return space
    try:
        resolutions = [positive_integer(part.strip()) for part in arguments.resolution.split(",")]
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"--resolution: {error}") from None
    return space.with_resolutions(resolutions)


def _remove(arguments: argparse.Namespace) -> int:
    from ofa_profiler.devices import open_device

    places, lending = {}, lending_of(arguments)
    for spec in arguments.device:
        with lending.borrowed(spec):
            places[spec] = open_device(spec, device_options(arguments)).remove()
        say(f"removed {places[spec]} from {spec}")
    if arguments.json:
        print(json.dumps({"removed": places}, indent=2))
    return lending.exit_code(0)


def _import(arguments: argparse.Namespace) -> int:
    from ofa_profiler.measuring.model_table import is_model
    from ofa_profiler.measuring.offline import import_results
    from ofa_profiler.tables.corrections import Sum
    from ofa_profiler.verification.calibrate import networks_journal, restore_calibration
    from ofa_profiler.verification.mixed import restore_mixed

    (name,) = arguments.name or [None]
    table, replay = import_results(arguments.results, arguments.out, name=name, fresh=arguments.fresh)
    if arguments.calibrate != 0 and not is_model(replay.run):
        table = restore_calibration(table, replay.run.created, arguments.results)
        if table.correction.method == Sum.method:
            beside = networks_journal(arguments.results).name
            say(f"note: no finished {beside} of the same kit is beside it, so the table adds up its ops")
        if both := restore_mixed(table, arguments.results):
            say(f"restored the correction of mixed networks: {both.name}")
    document = report_table(table, replay, {"measuring_seconds": round(replay.measuring_s, 3)})
    if arguments.json:
        print(json.dumps(document, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(leave(main()))
