"""The answer of `ofa-search` for people: a page beside the files, and the changes of `--explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_search.cli.request import Request
from ofa_search.results.found import Found
from ofa_search.searching.api import problem_of

if TYPE_CHECKING:
    from rich.console import Console

    from ofa_search.searching.around import Around

PAGE = "search.html"


def around(request: Request, found: Found) -> Around:
    """What surrounds a network that the request has found.

    If it was measured, predictions are corrected by what its own was off, as in `--verify`.
    """
    from ofa_search.searching.around import Around

    ratios = {
        name: found.result.latency_ms[name] / measured_ms
        for name, measured_ms in (found.measured_latency_ms or {}).items()
    }
    budgets_ms = {name: ms * ratios.get(name, 1.0) for name, ms in found.result.budget_ms.items()}
    problem = problem_of(
        request.space,
        request.tables,
        replace(found.result, budget_ms=budgets_ms),
        request.objective,
        max_macs=request.max_macs,
        max_params=request.max_params,
        max_size=request.max_size,
        n_classes=request.source.space.n_classes,
        confidence=request.confidence,
    )
    return Around(problem, request.tables)


def explained(request: Request, found: list[Found]) -> list[Found]:
    """The networks with every change of one choice, if `--explain` asks for it."""
    if not request.explain:
        return found
    return [replace(network, changes=around(request, network).changes) for network in found]


def print_changes(console: Console, found: Sequence[Found]) -> None:
    """A table for each network whose changes are known."""
    for network in found:
        if network.changes is not None:
            from ofa_search.results.answer.changes import changes_table

            console.print(changes_table(network))


def write_answer(request: Request, found: Sequence[Found]) -> Path | None:
    """Write the page beside `search.json`, if files are wanted and the library for charts is installed."""
    if request.out is None:
        return None
    from ofa_profiler.pages.page import can_write_pages, write_page

    if not can_write_pages():
        return None
    from ofa_search.results.answer.answer import Answer
    from ofa_search.results.answer.page import answer_page

    path = request.out / PAGE
    write_page(answer_page([Answer(network, around(request, network)) for network in found]), path)
    return path
