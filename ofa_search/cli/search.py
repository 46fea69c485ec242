"""`ofa-search`: a latency table becomes the best network under a budget."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_profiler.cli.options import Parser, add_device_options, whole_number
from ofa_profiler.cli.terminal import progress_bar, run_command, say
from ofa_profiler.errors import OverBudgetError
from ofa_profiler.spaces import space_names
from ofa_search.cli.request import DEFAULT_OUT, MACS, Request, read_request
from ofa_search.results.found import Found, document, write_networks, write_summary
from ofa_search.results.report import accuracy_words, results_table, weight_words
from ofa_search.searching.api import search_each
from ofa_search.searching.engines import DEFAULT_ENGINE, engine_names

if TYPE_CHECKING:
    from ofa_profiler.devices import Device

PROG = "ofa-search"

_DESCRIPTION = """\
Find the architecture with the highest predicted accuracy that keeps the budget of a latency table
(or of several: each --budget belongs to the --lut in the same place, and all must hold), and export it.
"""

_EXAMPLES = """\
examples:
  ofa-search --lut latency_tables/pi.csv --budget 20ms
  ofa-search --lut note10/ --budget 25ms --predictor acc_predictor.pth --no-export --json
  ofa-search --lut phone.csv --budget 20ms --lut board.csv --budget 35ms --max-params 5M
  ofa-search --lut pi.csv --pareto 15ms:40ms:6       one network for each of 6 budgets
  ofa-search --lut this.csv --budget 20ms --verify local

exit codes: 0 done, 2 bad usage or bad input, 3 no architecture keeps the budget,
4 the device failed, 5 measured again and over the budget
"""


def _parser() -> Parser:
    parser = Parser(PROG, _DESCRIPTION, _EXAMPLES)
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--lut", metavar="CSV", action="append", default=[], help="latency table, or folder of published ones"
    )
    limits.add_argument("--budget", metavar="T", action="append", default=[], help="most time by that table, like 20ms")
    limits.add_argument("--pareto", metavar="LOW:HIGH:N", help="instead of the first --budget: N of them, evenly")
    limits.add_argument("--max-macs", metavar="N", help="most multiply-accumulates, like 300M")
    limits.add_argument("--max-params", metavar="N", help="most parameters, like 5M")
    what = parser.add_argument_group("what is searched")
    what.add_argument("--space", metavar="NAME", help=f"{', '.join(space_names())} (default: that of the table)")
    what.add_argument(
        "--predictor",
        metavar="NAME|PATH",
        help=f"accuracy predictor, or {MACS} to maximise MACs instead (default: the one that ships for the space)",
    )
    what.add_argument(
        "--supernet",
        metavar="NAME|PATH",
        help="trained supernet (default: the one that ships for the space; where none does, weights are made up)",
    )
    what.add_argument(
        "--calibration",
        metavar="IMAGES",
        type=Path,
        help="training images to take BatchNorm statistics from (default: what the supernet's file brings)",
    )
    what.add_argument(
        "--engine", metavar="NAME", default=DEFAULT_ENGINE, help=f"{', '.join(engine_names())} (default: %(default)s)"
    )
    what.add_argument("--seed", metavar="S", type=whole_number, default=0, help="same seed, same result (default: 0)")
    then = parser.add_argument_group("what is done with it")
    then.add_argument("--out", metavar="DIR", type=Path, help=f"folder for the files (default: {DEFAULT_OUT})")
    then.add_argument(
        "--no-export", action="store_true", help="write no model (and nothing at all unless --out is given)"
    )
    then.add_argument(
        "--verify", metavar="DEVICE", help="measure it on the device of the first table, as in ofa-profile"
    )
    then.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    add_device_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code (DESIGN.md lists them)."""
    return run_command(PROG, lambda: _search(read_request(_parser().parse_args(argv))))


# --- search ------------------------------------------------------------------------------------------


def _search(request: Request) -> int:
    results = search_each(
        request.space,
        request.tables,
        request.budgets_ms,
        request.objective,
        engine=request.engine,
        seed=request.seed,
        max_macs=request.max_macs,
        max_params=request.max_params,
        n_classes=request.source.space.n_classes,
    )
    found = [Found(result, request.objective, request.source) for result in results]
    if request.out is not None:
        found = write_networks(request.out, found, models=request.export)
        write_summary(request.out, found)
    if request.device is not None:
        found = _verify(request, request.device, found)
    _report(request, found)
    if request.device is not None:
        _check_budgets(found)
    return 0


def _verify(request: Request, device: Device, found: Sequence[Found]) -> list[Found]:
    from ofa_profiler.verification.doubts import other_device
    from ofa_search.results.measure import measure_networks

    table = request.tables[0]
    with device, progress_bar() as show:
        if other := other_device(table, device.describe()):
            say(f"warning: {other}")
        measured = measure_networks(
            found, table, device, progress=lambda p: show("measure", p.done, p.total, p.left_s, "")
        )
    if request.out is not None:
        write_summary(request.out, measured)
    return measured


def _check_budgets(found: Sequence[Found]) -> None:
    over = [
        f"{measured:.4g} ms for {network.result.budget_ms[name]:g} ms on {name}"
        for network in found
        for name, measured in (network.measured_latency_ms or {}).items()
        if measured > network.result.budget_ms[name]
    ]
    if over:
        raise OverBudgetError(f"measured again, and over the budget: {', '.join(over)}")


# --- words -------------------------------------------------------------------------------------------


def _report(request: Request, found: Sequence[Found]) -> None:
    if request.json:
        print(json.dumps(document(found), indent=2, allow_nan=False), flush=True)
        return
    from rich.console import Console

    # What is piped into a file has no width to keep to.
    Console(width=None if sys.stdout.isatty() else 120).print(results_table(found))
    total = document(found)
    say(f"{total['evaluations']} architectures scored in {total['search_seconds']:.2f} s ({total['engine']})")
    say(accuracy_words(request.objective, ships=request.predictor_ships))
    if request.out is not None:
        say(f"written to {request.out}")
        if request.export:
            say(weight_words(request.source, ships=request.supernet_ships))


if __name__ == "__main__":
    sys.exit(main())
