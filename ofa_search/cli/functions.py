"""`--predictor package.module:function`: the function, its journal of evaluations, and where it runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ofa_profiler.base.progress import Reporter
from ofa_profiler.cli.terminal import progress_bar, say
from ofa_profiler.errors import UsageError
from ofa_search.searching.functions.calling import NamedFunction
from ofa_search.searching.functions.objective import FunctionObjective
from ofa_search.searching.objectives import Objective

#: The journal in the folder of results.
JOURNAL = "evaluations.jsonl"


def add_function_options(group: argparse._ArgumentGroup) -> None:
    """Add the options for `--predictor package.module:function`."""
    group.add_argument(
        "--jobs",
        metavar="N",
        type=_jobs,
        help="with --predictor package.module:function: evaluate in N processes at the same time (default: 1)",
    )
    group.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="with --predictor package.module:function: evaluate on the workers of this Dask scheduler "
        "(tcp://host:8786)",
    )
    group.add_argument(
        "--fresh",
        action="store_true",
        help="with --predictor package.module:function: evaluate again what earlier runs have evaluated",
    )


def _jobs(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1024):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1024")
    return int(text)


def refuse_function_options(arguments: argparse.Namespace) -> None:
    """Raises `UsageError` if options of a function are given without one."""
    for option in ("jobs", "dask", "fresh"):
        if getattr(arguments, option):
            raise UsageError(f"--{option} is for --predictor package.module:function")


def function_objective(arguments: argparse.Namespace, folder: Path) -> FunctionObjective:
    """The function as an objective, with its journal in the folder of results. Raises `UsageError`."""
    if arguments.jobs and arguments.dask:
        raise UsageError("--jobs counts processes of this machine, --dask uses workers: give one of them")
    path = folder / JOURNAL
    objective = FunctionObjective(NamedFunction(arguments.predictor), journal=path, fresh=arguments.fresh)
    journal = objective.journal
    if journal is not None and journal.scores:
        count = len(journal.scores)
        say(f"note: {count} evaluation{'s' * (count > 1)} in {path} count; --fresh evaluates again")
        if journal.of_other_code:
            say(f"warning: {journal.of_other_code} of them are of another version of the file of {objective.name}")
    return objective


@contextmanager
def evaluating(objective: Objective, jobs: int, dask: str | None) -> Iterator[None]:
    """While a function can be evaluated, in processes of this machine or by Dask. Other objectives need nothing."""
    if not isinstance(objective, FunctionObjective):
        yield
        return
    if dask is not None:
        from ofa_profiler.base.fleet import fleet

        with objective, fleet(dask) as workers:
            objective.executor = workers.executor()
            yield
        return
    from ofa_profiler.base.processes import worker_processes  # with multiprocessing

    with objective, worker_processes(jobs) as objective.executor:
        yield


@contextmanager
def showing_evaluations(objective: Objective, expected: int | None, reporter: Reporter | None = None) -> Iterator[None]:
    """While the evaluations of a function are shown, by a bar or by a reporter; `expected` are as many at most."""
    if not isinstance(objective, FunctionObjective):
        yield
    elif reporter is None:
        with progress_bar() as bar, showing_evaluations(objective, expected, bar):
            yield
    else:
        objective.progress, objective.expected = reporter, expected
        try:
            yield
        finally:
            objective.progress = objective.expected = None


def say_default_evaluations(objective: Objective, evaluations: int | None) -> None:
    """Say how often a function is evaluated, if nobody has said it."""
    if evaluations is None and isinstance(objective, FunctionObjective):
        count = f"at most {objective.default_evaluations} architectures for each network that is searched"
        say(f"note: {objective.name} evaluates {count}; --evaluations N changes it")


def interrupted_words(objective: Objective) -> str:
    """What is kept after an interruption."""
    if not isinstance(objective, FunctionObjective):
        return "interrupted"
    return "interrupted; the evaluations so far are kept; run the same command again to resume"
