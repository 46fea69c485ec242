"""`ofa-search`: find the best network under the budget of a latency table."""

from __future__ import annotations

if __name__ == "__main__":  # before the other imports, which take a while
    from ofa_profiler.cli.start import end_quietly, leave

    end_quietly()

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_profiler.cli.options import Parser, add_device_options, positive_integer, space_words, whole_number
from ofa_profiler.cli.terminal import progress_bar, run_command, say
from ofa_profiler.errors import OverBudgetError
from ofa_profiler.networks.architecture import Architecture
from ofa_search.cli.answer import explained, print_changes, write_answer
from ofa_search.cli.functions import (
    add_function_options,
    evaluating,
    interrupted_words,
    say_default_evaluations,
    showing_evaluations,
)
from ofa_search.cli.ladder import add_ladder_option, finish_ladder, only_rungs
from ofa_search.cli.networks import expected_evaluations, networks_of, results_of, with_size_limit
from ofa_search.cli.notes import say_plain_models
from ofa_search.cli.request import DEFAULT_OUT, MACS, Request, read_request
from ofa_search.results.found import Found, document
from ofa_search.results.report import (
    accuracy_words,
    files_table,
    gap_words,
    interval_words,
    mixed_words,
    precision_words,
    results_table,
    weight_words,
)
from ofa_search.searching.engines import DEFAULT_ENGINE, engine_names
from ofa_search.searching.functions.objective import FunctionObjective
from ofa_search.searching.strategies import Strategy

if TYPE_CHECKING:
    from ofa_profiler.devices import Device

PROG = "ofa-search"

_DESCRIPTION = """\
Find the architecture with the highest predicted accuracy that meets the latency budget, and export it.
With several tables, the first --budget belongs to the first --lut, and so on; all budgets must be met.
"""

_EXAMPLES = """\
examples:
  ofa-search --lut latency_tables/pi.csv --budget 20ms
  ofa-search --lut note10/ --budget 25ms --predictor acc_predictor.pth --no-export --json
  ofa-search --lut phone.csv --budget 20ms --lut board.csv --budget 35ms --max-params 5M
  ofa-search --lut pi.csv --pareto 15ms:40ms:6       6 budgets, one network each
  ofa-search --fleet fleet.csv --no-export           a network for each device
  ofa-search --lut this.csv --budget 20ms --verify local
  ofa-search --lut pi-fp32.csv --lut pi-int8.csv --precision mixed --budget 20ms

exit codes: 0 done, 2 bad usage or bad input, 3 no architecture meets the budget, 4 the device failed,
5 no network keeps the budget when measured or written, 130 or 143 interrupted
"""


def _parser() -> Parser:
    parser = Parser(PROG, _DESCRIPTION, _EXAMPLES)
    _add_limits(parser)
    what = parser.add_argument_group("search")
    what.add_argument("--space", metavar="NAME", help=f"{space_words()} (default: the space of the table)")
    what.add_argument(
        "--predictor",
        metavar="NAME|PATH|FUNCTION",
        help=f"accuracy predictor, or {MACS} to maximise MACs instead, or a function of yours that evaluates an "
        "architecture, package.module:function (default: the included predictor for the space)",
    )
    what.add_argument(
        "--supernet",
        metavar="NAME|PATH",
        help="trained supernet (default: the included one for the space, else untrained weights)",
    )
    what.add_argument(
        "--calibration",
        metavar="IMAGES",
        type=Path,
        help="training images for BatchNorm statistics and the ranges of int8 (default: what the supernet's file has)",
    )
    what.add_argument(
        "--precision",
        choices=("fp32", "int8", "mixed"),
        help="number format of the models (default: that of the tables); mixed chooses one for each block and needs "
        "two --lut per device, one of fp32 and one of int8, in any order, and one --budget",
    )
    what.add_argument(
        "--engine",
        metavar="NAME",
        help=f"{', '.join(engine_names())} "
        f"(default: {DEFAULT_ENGINE}, and {FunctionObjective.default_engine} for package.module:function)",
    )
    what.add_argument(
        "--evaluations",
        metavar="N",
        type=positive_integer,
        help="score at most N architectures for each network that is searched (default: as many as the engine needs)",
    )
    add_function_options(what)
    what.add_argument(
        "--seed",
        metavar="S",
        type=whole_number,
        default=0,
        help="random seed; equal seeds give equal results (default: 0)",
    )
    _add_output(parser)
    add_device_options(parser)
    return parser


def _add_output(parser: Parser) -> None:
    then = parser.add_argument_group("output")
    then.add_argument("--out", metavar="DIR", type=Path, help=f"folder for the files (default: {DEFAULT_OUT})")
    then.add_argument(
        "--no-export", action="store_true", help="do not write models; without --out, write no files at all"
    )
    then.add_argument(
        "--verify",
        metavar="DEVICE",
        help="measure the best networks on DEVICE (as in ofa-profile), with the settings of the first table; the "
        "result is the best one that keeps the budget",
    )
    then.add_argument(
        "--explain",
        action="store_true",
        help="say what every change of one choice of the network would gain or cost, in accuracy and milliseconds",
    )
    then.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def _add_limits(parser: Parser) -> None:
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--lut", metavar="CSV", action="append", default=[], help="latency table, or a folder of published tables"
    )
    limits.add_argument(
        "--budget", metavar="T", action="append", default=[], help="latency budget for that table, for example 20ms"
    )
    limits.add_argument("--per-device", action="store_true", help="one network for each --lut, instead of one for all")
    limits.add_argument(
        "--fleet",
        metavar="CSV",
        help="a network for each row of a file with the columns lut and budget; rows of the same family share one",
    )
    limits.add_argument("--pareto", metavar="LOW:HIGH:N", help="N evenly spaced budgets instead of the first --budget")
    add_ladder_option(limits)
    limits.add_argument("--max-macs", metavar="N", help="maximum number of multiply-accumulates, for example 300M")
    limits.add_argument("--max-params", metavar="N", help="maximum number of parameters, for example 5M")
    limits.add_argument(
        "--max-size",
        metavar="SIZE",
        help="maximum size of the model file for the runtime of the first table, for example 2MB (2,000,000 bytes)",
    )
    limits.add_argument(
        "--fix",
        metavar="CHOICE=VALUE",
        action="append",
        default=[],
        help="only networks with this value of a choice of the space, or one of VALUE,VALUE; for example "
        "resolution=192, kernel_size=3, stage0.depth=2",
    )
    limits.add_argument(
        "--confidence",
        metavar="P",
        type=float,
        help="keep the budgets with this probability, for example 0.95, instead of in the mean",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code (`docs/contracts.md` lists them)."""
    kept = "interrupted"

    def command() -> int:
        nonlocal kept
        arguments = _parser().parse_args(argv)
        if arguments.per_device or arguments.fleet is not None:
            from ofa_search.cli.fleet import run_fleet  # few searches need it

            return run_fleet(arguments, _found_and_written)
        request = read_request(arguments)
        kept = interrupted_words(request.objective)
        with evaluating(request.objective, request.jobs, request.dask):
            return _search(request)

    return run_command(PROG, command, interrupted=lambda: kept)


# --- search ------------------------------------------------------------------------------------------


def _found_and_written(request: Request, strategy: Strategy, start: Sequence[Architecture]) -> list[Found]:
    request = with_size_limit(request)
    with evaluating(request.objective, request.jobs, request.dask):
        found = networks_of(request, strategy, start)
    found = _written(request, found)
    if request.export:
        write_answer(request, found)
    return found


def _search(request: Request) -> int:
    request = with_size_limit(request)
    say_default_evaluations(request.objective, request.evaluations)
    with showing_evaluations(request.objective, expected_evaluations(request)):
        found = networks_of(request)
    found = only_rungs(found, request.tables[0]) if request.is_ladder else found
    found = _written(request, found)  # before a device can fail
    say_plain_models(request)
    if request.device is not None:
        found = _verify(request, request.device, found)
    found = finish_ladder(request.out, found, request.tables[0]) if request.is_ladder else found
    write_answer(request, found)
    _report(request, found)
    if request.device is not None:
        _check_budgets(found)
    return request.lending.exit_code(0)


def _written(request: Request, found: list[Found]) -> list[Found]:
    """Write the files, if any are wanted."""
    found = explained(request, found)
    if request.out is None:
        return found
    from ofa_search.results.files import write_networks, write_summary  # with all exporters
    from ofa_search.results.memory import with_memory

    found = write_networks(request.out, found, models=request.export, max_size=request.max_size)
    if request.export:
        found = with_memory(found)
    write_summary(request.out, found)
    if request.is_front:
        from ofa_search.results.front import write_front

        write_front(request.out, found)
    return found


def _verify(request: Request, device: Device, found: list[Found]) -> list[Found]:
    """The best networks that keep the budgets when measured; their files replace those of `found`."""
    from ofa_profiler.verification.doubts import other_device
    from ofa_search.results.finalists import decide_by_measuring
    from ofa_search.results.measure import measure_networks

    table = request.tables[0]

    def search(network: Found, ms: float) -> Found:
        budget_ms = network.result.budget_ms
        (result,) = results_of(request, [[ms, *list(budget_ms.values())[1:]]])
        return replace(network, result=replace(result, budget_ms=budget_ms), files={})

    with (
        request.lending.lent(device),
        progress_bar() as reporter,
        showing_evaluations(request.objective, None, reporter),
    ):
        if other := other_device(table, device.describe()):
            say(f"warning: {other}")
        finals = decide_by_measuring(
            found, table.name, search, lambda networks: measure_networks(networks, table, device, progress=reporter)
        )
    if not request.json:
        say(f"{finals.networks} networks measured in {finals.rounds} rounds")
    return _written(request, finals.found)


def _check_budgets(found: Sequence[Found]) -> None:
    over = [
        f"{measured:.4g} ms for {network.result.budget_ms[name]:g} ms on {name}"
        for network in found
        for name, measured in (network.measured_latency_ms or {}).items()
        if measured > network.result.budget_ms[name]
    ]
    if over:
        raise OverBudgetError(f"no network keeps the budget when measured; over the budget: {', '.join(over)}")


# --- words -------------------------------------------------------------------------------------------


def _report(request: Request, found: Sequence[Found]) -> None:
    if request.json:
        print(json.dumps(document(found), indent=2, allow_nan=False), flush=True)
        return
    from rich.console import Console

    # A file has no width.
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(results_table(found))
    if request.out is not None and request.export:
        console.print(files_table(found))
    print_changes(console, found)
    for network in found:
        for line in (*interval_words(network), gap_words(network)):
            say(line)
        if network.precisions is not None:
            say(mixed_words(network))
    total = document(found)
    count = total["evaluations"]
    say(f"{count} architecture{'s' * (count != 1)} scored in {total['search_seconds']:.2f} s ({total['engine']})")
    say(accuracy_words(request.objective, ships=request.predictor_ships, precision=request.precision))
    if request.out is not None:
        say(f"written to {request.out}")
        if request.export:
            say(weight_words(request.source, ships=request.supernet_ships))
            if request.precision != "fp32":
                say(precision_words(request.source))


if __name__ == "__main__":
    sys.exit(leave(main()))
