"""`ofa-search`: a latency table becomes the best network under a budget."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ofa_profiler.cli_support import Parser, add_device_options, device_options, progress_bar, run_command, say
from ofa_profiler.errors import OverBudgetError, UsageError
from ofa_profiler.spaces import SearchSpace, get_space, space_names
from ofa_profiler.table import LatencyTable
from ofa_profiler.units import format_count, parse_count, parse_duration_ms
from ofa_search.api import search_each
from ofa_search.document import Found, document, write_networks, write_summary
from ofa_search.engines import DEFAULT_ENGINE, Engine, engine_names, get_engine
from ofa_search.objectives import Macs, Objective, PredictedAccuracy
from ofa_search.predictor import AccuracyPredictor
from ofa_search.weights import WeightSource, weight_source

if TYPE_CHECKING:
    from ofa_profiler.devices import Device

PROG = "ofa-search"
DEFAULT_OUT = Path("out") / "search"
MACS = "macs"
_MAX_PARETO = 1000

_DESCRIPTION = """\
Find the architecture with the highest predicted accuracy that keeps the budget of a latency table
(or of several: each --budget belongs to the --lut in the same place, and all must hold), and export it.
"""

_EXAMPLES = """\
examples:
  ofa-search --lut latency_tables/pi.csv --budget 20ms --predictor macs
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
    what.add_argument("--predictor", metavar="PATH", help=f"accuracy predictor, or {MACS} to maximise MACs instead")
    what.add_argument("--supernet", metavar="PATH", help="trained supernet; without one the weights are made up")
    what.add_argument(
        "--engine", metavar="NAME", default=DEFAULT_ENGINE, help=f"{', '.join(engine_names())} (default: %(default)s)"
    )
    what.add_argument("--seed", metavar="S", type=_seed, default=0, help="same seed, same result (default: 0)")
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


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code (DESIGN.md lists them)."""
    return run_command(PROG, lambda: _search(_request(_parser().parse_args(argv))))


@dataclass(frozen=True)
class _Request:
    """What was asked for, checked as far as that goes without searching."""

    space: SearchSpace
    tables: list[LatencyTable]
    budgets_ms: list[list[float]]
    objective: Objective
    engine: Engine
    seed: int
    max_macs: float | None
    max_params: float | None
    source: WeightSource
    device: Device | None
    out: Path | None
    export: bool
    json: bool


def _request(arguments: argparse.Namespace) -> _Request:
    # First what costs nothing to check, then files, the large ones last.
    budgets_ms = _budgets_ms(arguments)
    max_macs = parse_count(arguments.max_macs, "--max-macs") if arguments.max_macs is not None else None
    max_params = parse_count(arguments.max_params, "--max-params") if arguments.max_params is not None else None
    engine = get_engine(arguments.engine)
    named_space = get_space(arguments.space) if arguments.space is not None else None
    tables = _tables(arguments.lut)
    space = named_space or _common_space(tables)
    objective = _objective(arguments.predictor, space)
    return _Request(
        space=space,
        tables=tables,
        budgets_ms=budgets_ms,
        objective=objective,
        engine=engine,
        seed=arguments.seed,
        max_macs=max_macs,
        max_params=max_params,
        device=_device(arguments, tables[0]),
        source=weight_source(space, _supernet(arguments.supernet), arguments.seed),
        out=arguments.out if arguments.out is not None or arguments.no_export else DEFAULT_OUT,
        export=not arguments.no_export,
        json=arguments.json,
    )


# --- options -----------------------------------------------------------------------------------------


def _budgets_ms(arguments: argparse.Namespace) -> list[list[float]]:
    """A row per search, with a budget for each table."""
    tables, budgets = len(arguments.lut), [parse_duration_ms(text, "--budget") for text in arguments.budget]
    if not tables:
        raise UsageError("which device? give --lut CSV, a latency table, and --budget, like 20ms")
    if arguments.pareto is None:
        if tables != len(budgets):
            raise UsageError(
                f"{tables} --lut but {len(budgets)} --budget: each table needs its budget, "
                "like --lut phone.csv --budget 20ms"
            )
        return [budgets]
    if len(budgets) == tables:
        say(f"warning: --pareto gives the budgets of the first table; --budget {arguments.budget[0]} is not used")
        budgets = budgets[1:]
    if tables != len(budgets) + 1:
        raise UsageError(
            f"{tables} --lut but {len(budgets)} --budget beside --pareto: every table but the first needs one"
        )
    return [[first, *budgets] for first in _pareto_ms(arguments.pareto)]


def _pareto_ms(text: str) -> list[float]:
    parts = text.split(":")
    if len(parts) != 3:
        raise UsageError(f"--pareto {text!r} is not LOW:HIGH:N, like 15ms:40ms:6")
    low, high = (parse_duration_ms(part, "--pareto") for part in parts[:2])
    if low >= high:
        raise UsageError(f"--pareto {text!r}: the first budget must be below the second")
    count = int(parts[2]) if parts[2].isascii() and parts[2].isdigit() and len(parts[2]) < 9 else 0
    if not 2 <= count <= _MAX_PARETO:
        raise UsageError(f"--pareto {text!r}: the number of budgets must be a whole number from 2 to {_MAX_PARETO}")
    return [float(budget) for budget in np.linspace(low, high, count)]


def _tables(paths: Sequence[str]) -> list[LatencyTable]:
    tables = [LatencyTable.load(path) for path in paths]
    names = [table.name for table in tables]
    for table, path in zip(tables, paths, strict=True):
        if names.count(table.name) > 1:
            raise UsageError(f"--lut {path}: two tables are called {table.name}; rename one of the files")
        for warning in table.warnings:
            say(f"warning: {warning}")
    return tables


def _common_space(tables: Sequence[LatencyTable]) -> SearchSpace:
    """The space that the tables are for, where that is clear."""
    common = [name for name in space_names() if all(name in table.spaces for table in tables)]
    if len(common) == 1:
        return get_space(common[0])
    names = ", ".join(table.name for table in tables)
    if common:
        raise UsageError(f"{names}: made for the spaces {', '.join(common)}; say which one with --space")
    each = "; ".join(f"{table.name} is for {', '.join(table.spaces) or 'no known space'}" for table in tables)
    raise UsageError(f"no search space is covered by the tables given: {each}")


def _objective(predictor: str | None, space: SearchSpace) -> Objective:
    if predictor is None:
        raise UsageError(
            f"no accuracy predictor for {space.name} comes with this version: give --predictor FILE, "
            f"or --predictor {MACS} to maximise MACs instead of accuracy"
        )
    if predictor == MACS:
        return Macs()
    loaded = AccuracyPredictor.load(predictor)
    loaded.resolutions_of(space)  # says so if it is for another kind of network
    if loaded.space != space.name:
        say(
            f"warning: the predictor {loaded.name} learned the accuracies of {loaded.space}; it can rank networks "
            f"of {space.name}, but their accuracies will differ"
        )
    return PredictedAccuracy(loaded)


def _supernet(path: str | None) -> Path | None:
    if path is None:
        return None
    if not Path(path).exists():
        raise UsageError(f"--supernet {path}: no such file")
    return Path(path)


def _device(arguments: argparse.Namespace, table: LatencyTable) -> Device | None:
    if arguments.verify is None:
        return None
    from ofa_profiler.devices import open_device
    from ofa_profiler.verify import settings_of

    settings_of(table)  # says so if the table does not tell how to measure
    return open_device(arguments.verify, device_options(arguments))


# --- search ------------------------------------------------------------------------------------------


def _search(request: _Request) -> int:
    results = search_each(
        request.space,
        request.tables,
        request.budgets_ms,
        request.objective,
        engine=request.engine,
        seed=request.seed,
        max_macs=request.max_macs,
        max_params=request.max_params,
    )
    if request.out is None:
        found = [Found(result, request.source.status) for result in results]
    else:
        found = write_networks(request.out, results, request.source, models=request.export)
        write_summary(request.out, found)
    if request.device is not None:
        found = _verify(request, request.device, found)
    _report(request, found)
    if request.device is not None:
        _check_budgets(found)
    return 0


def _verify(request: _Request, device: Device, found: Sequence[Found]) -> list[Found]:
    from ofa_profiler.verify import other_device
    from ofa_search.verify import measure_networks

    table = request.tables[0]
    with device, progress_bar() as show:
        if other := other_device(table, device.describe()):
            say(f"warning: {other}")
        measured = measure_networks(
            found, table, device, request.source, progress=lambda p: show("measure", p.done, p.total, p.left_s, "")
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


def _report(request: _Request, found: Sequence[Found]) -> None:
    if request.json:
        print(json.dumps(document(found), indent=2, allow_nan=False), flush=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{request.space.name}, highest {request.objective.name}", title_justify="left")
    rows = [_row(network) for network in found]
    shown = [i for i in range(len(_COLUMNS)) if any(row[i] != _NOTHING for row in rows)]
    for i in shown:
        table.add_column(_COLUMNS[i], justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[i] for i in shown))
    # What is piped into a file has no width to keep to.
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    total = document(found)
    say(f"{total['evaluations']} architectures scored in {total['search_seconds']:.2f} s ({total['engine']})")
    if isinstance(request.objective, Macs):
        say(f"MACs were maximised, a stand-in: no accuracy was predicted (--predictor {MACS})")
    if request.out is not None:
        say(f"written to {request.out}")
        if request.export and request.source.status == "untrained":
            say("the weights of the models are made up, not trained: good for timing, not for predictions")


_COLUMNS = ("budget", "latency", "measured", "accuracy", "MACs", "params", "pixels", "depths")
_NOTHING = "-"


def _row(network: Found) -> list[str]:
    result = network.result
    accuracy = result.predicted_accuracy
    return [
        _milliseconds(result.budget_ms.values()),
        _milliseconds(result.latency_ms.values()),
        _milliseconds((network.measured_latency_ms or {}).values()),
        f"{accuracy:.2%}" if accuracy is not None else _NOTHING,
        format_count(result.macs),
        format_count(result.params),
        str(result.architecture.resolution),
        " ".join(str(stage.depth) for stage in result.architecture.stages),
    ]


def _milliseconds(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.4g} ms" for value in values) or _NOTHING


if __name__ == "__main__":
    sys.exit(main())
