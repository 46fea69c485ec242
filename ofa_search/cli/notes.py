"""What `ofa-search` says about a request beside its results."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ofa_profiler.cli.terminal import say
from ofa_search.cli.request import Request
from ofa_search.searching.api import SearchResult, slowest_ms


def listed_once(results: Sequence[SearchResult]) -> tuple[SearchResult, ...]:
    """The results of --pareto that are better than those of lower budgets; says how many repeat one."""
    better = [*results[:1], *(result for before, result in pairwise(results) if result.score > before.score)]
    if repeated := len(results) - len(better):
        say(f"note: {repeated} of {len(results)} budgets give the network of a lower budget, which is listed once")
    return tuple(better)


def say_loose_budgets(request: Request) -> None:
    """Say which budgets are above the slowest network of the space."""
    for number, table in enumerate(request.tables):
        slowest = slowest_ms(request.space, table, request.objective, request.confidence)
        above = [row[number] for row in request.budgets_ms if slowest is not None and row[number] > slowest]
        if above:
            limit = f"{slowest:.4g} ms on {table.name}"
            say(f"note: the slowest network takes {limit}; budgets from {above[0]:g}ms on exclude none")


def say_plain_models(request: Request) -> None:
    """Say which tables do not know in which forms the models are fast."""
    unknown = [table.name for table in request.tables if table.metadata.get("runtime") is None]
    if unknown and request.out is not None and request.export:
        which = f"table {', '.join(unknown)} does not say which forms are fast on its device"
        say(f"note: {which}, so the models are plain; a table that ofa-profile makes there would")
