"""Many goals in one command: a network for each device and budget of `--fleet`, or of `--per-device`."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ofa_profiler.base.units import parse_duration_ms
from ofa_profiler.base.user_code import is_module_name
from ofa_profiler.cli.terminal import say
from ofa_profiler.errors import InputFileError, OfaError, UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.protocol.target import MIXED
from ofa_profiler.tables.csv_file import read_text
from ofa_search.cli.fleet_files import Kept, fingerprint
from ofa_search.cli.fleet_report import Outcome, Outcomes, report_fleet
from ofa_search.cli.progress import counting
from ofa_search.cli.request import Request, out_folder, read_request
from ofa_search.cli.tables import Loader, read_tables
from ofa_search.results.found import Found, document
from ofa_search.searching.strategies import InOrder, Strategy

#: The columns of a fleet's file.
_LUT, _BUDGET, _FAMILY = "lut", "budget", "family"
#: All bounds together take about so many times the time of one.
_BOUNDS = 25
#: Finds the networks of a request and writes their files, from networks to start from.
Find = Callable[[Request, Strategy, Sequence[Architecture]], list[Found]]


@dataclass(frozen=True)
class Goal:
    """A network for the tables `luts`, each with its budget; in mixed precision, each pair has a budget."""

    name: str
    luts: tuple[str, ...]
    budgets: tuple[str, ...]


@dataclass(frozen=True)
class _Row:
    lut: str
    budget: str
    family: str = ""


def run_fleet(arguments: argparse.Namespace, find: Find) -> int:
    """Search for all goals; one that fails is said in one line, and the others go on. Gives the exit code.

    Raises the error if all goals fail by the same one before a search: then it is that of an option.
    """
    for option in ("--pareto", "--ladder", "--verify"):
        if getattr(arguments, option.removeprefix("--")) is not None:
            raise UsageError(f"{option} is for one goal: leave out {'--fleet' if arguments.fleet else '--per-device'}")
    goals = read_goals(arguments)
    fleet = _Fleet(arguments, find, len(goals))
    with counting(len(goals), "devices") as show:
        for number, goal in enumerate(goals, start=1):
            fleet.pursue(goal)
            show(number)
    if fleet.request is None:
        errors = [outcome.error for outcome in fleet.outcomes.values() if outcome.error is not None]
        if len(set(map(str, errors))) == 1:
            raise errors[0]
        fleet.say_failures()
    return report_fleet(fleet.outcomes, out_folder(arguments), arguments)


@dataclass
class _Fleet:
    """The searches so far."""

    arguments: argparse.Namespace
    find: Find
    count: int
    outcomes: Outcomes = field(default_factory=dict)
    #: That of the first goal whose tables can be used.
    request: Request | None = None
    loader: Loader = field(default_factory=Loader)
    found: list[Architecture] = field(default_factory=list)

    def pursue(self, goal: Goal) -> None:
        """Search for a goal; a failure is its outcome."""
        try:
            request = self._request(goal)
            if self.request is None:
                self.say_failures()
                self.request = request
            outcome = self._searched(goal, request)
            self.found += [Architecture.from_json(each["architecture"]) for each in outcome.document["results"]]
        except OfaError as error:
            outcome = Outcome(goal.luts, goal.budgets, error=error)
            if self.request is not None:
                _say_failure(goal.name, error)
        self.outcomes[goal.name] = outcome

    def say_failures(self) -> None:
        """Say the failures so far."""
        for name, outcome in self.outcomes.items():
            _say_failure(name, outcome.error)

    def _request(self, goal: Goal) -> Request:
        if self.request is None:
            own = {"lut": list(goal.luts), "budget": list(goal.budgets)}
            return read_request(argparse.Namespace(**{**vars(self.arguments), **own}), self.loader)
        tables = read_tables(goal.luts, self.arguments.precision, self.loader)
        budgets_ms = [parse_duration_ms(text, "budget") for text in goal.budgets]
        if len(tables) != len(budgets_ms):
            raise UsageError(f"{len(tables)} tables or pairs, but {len(budgets_ms)} budgets")
        return self.request.with_tables(tables, [budgets_ms])

    def _searched(self, goal: Goal, request: Request) -> Outcome:
        strategy = InOrder(quick=True, share=min(1.0, _BOUNDS / self.count))
        if request.out is None:
            return Outcome(goal.luts, goal.budgets, document(self.find(request, strategy, self.found)))
        folder = request.out / goal.name
        request = replace(request, out=folder)
        kept = Kept(folder, fingerprint(self.arguments, goal.luts, goal.budgets))
        is_function = is_module_name(self.arguments.predictor or "")  # its journal knows what it evaluated
        known = None if is_function else kept.read()
        if known is None:
            known = document(self.find(request, strategy, self.found))
            kept.write()
            return Outcome(goal.luts, goal.budgets, known, folder)
        return Outcome(goal.luts, goal.budgets, known, folder, is_kept=True)


def _say_failure(name: str, error: OfaError | None) -> None:
    say(f"{name}: {' '.join(str(error).split())}")


# --- what is asked for -----------------------------------------------------------------------------------


def read_goals(arguments: argparse.Namespace) -> list[Goal]:
    """One goal for each pair of `--lut` and `--budget`, or for each row or family of a fleet's file."""
    if arguments.fleet is not None:
        if arguments.lut or arguments.budget:
            raise UsageError("--fleet has the tables and budgets: leave out --lut and --budget")
        rows = _rows_of_file(Path(arguments.fleet))
    else:
        rows = _rows_of_options(arguments)
    grouped: dict[str, list[_Row]] = {}
    for number, row in enumerate(rows):
        grouped.setdefault(row.family or f"\0{number}", []).append(row)
    names: set[str] = set()
    goals = []
    for members in grouped.values():
        name = _name(members, rows, names)
        names.add(name)
        luts = tuple(lut for row in members for lut in row.lut.split("\0"))
        goals.append(Goal(name, luts, tuple(row.budget for row in members if row.budget)))
    return goals


def _rows_of_options(arguments: argparse.Namespace) -> list[_Row]:
    luts, budgets = list(arguments.lut), list(arguments.budget)
    what = "--lut"
    if arguments.precision == MIXED and len(luts) % 2 == 0:
        what = "pairs of --lut"
        luts = ["\0".join(pair) for pair in zip(luts[::2], luts[1::2], strict=True)]
    if not luts or len(luts) != len(budgets):
        raise UsageError(f"{len(luts)} {what} but {len(budgets)} --budget: --per-device needs one --budget for each")
    return [_Row(lut, budget) for lut, budget in zip(luts, budgets, strict=True)]


def _rows_of_file(path: Path) -> list[_Row]:
    reader = csv.DictReader(io.StringIO(read_text(path)), skipinitialspace=True)
    columns = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = columns
    for name in (_LUT, _BUDGET, _FAMILY):
        if (times := columns.count(name)) != 1 and (times or name != _FAMILY):
            problem = f"has {times} columns {name!r}" if times else f"has no column {name!r}"
            raise InputFileError(path, f"{problem}; a fleet has {_LUT}, {_BUDGET} and perhaps {_FAMILY}")
    rows = []
    for cells in reader:
        lut, budget, family = ((cells.get(name) or "").strip() for name in (_LUT, _BUDGET, _FAMILY))
        if not lut or not (budget or family):
            raise InputFileError(path, f"lacks a {_BUDGET if lut else _LUT}", row=reader.line_num)
        beside = path.parent / lut
        rows.append(_Row(str(beside if beside.exists() else lut), budget, family))
    if not rows:
        raise InputFileError(path, "contains no row")
    return rows


def _name(members: Sequence[_Row], rows: Sequence[_Row], taken: set[str]) -> str:
    """The family, else the stem of the table, with its budget if another row has it, too; a folder can have it."""
    first = members[0]
    stems = [Path(lut).resolve().name.removesuffix(".csv") for lut in first.lut.split("\0")]
    name = first.family or "+".join(stems)
    if not first.family and sum(row.lut == first.lut for row in rows) > 1:
        name = f"{name}-{first.budget}"
    name = "".join("-" if c in '/\\:*?"<>|' or not c.isprintable() else c for c in name).strip(". ") or "device"
    free = name
    while free in taken:
        free = f"{name}-{len(taken) + 1}"
    return free
