"""The searches of a request: from its tables and budgets to networks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

from ofa_profiler.networks.architecture import Architecture
from ofa_search.cli.notes import listed_once, say_loose_budgets
from ofa_search.cli.progress import counting
from ofa_search.cli.request import Request
from ofa_search.results.deployments import deployments_of
from ofa_search.results.found import Found
from ofa_search.searching.api import SearchResult, search_each
from ofa_search.searching.strategies import Front, Strategy


def networks_of(request: Request, strategy: Strategy | None = None, start: Sequence[Architecture] = ()) -> list[Found]:
    """The networks of all budgets; those of a front are listed once."""
    if request.is_front:
        is_shown = request.objective.default_evaluations is not None  # a function shows its evaluations
        with nullcontext() if is_shown else counting(len(request.budgets_ms)) as show:
            results = listed_once(results_of(request, request.budgets_ms, Front(show or (lambda _: None))))
    else:
        results = results_of(request, request.budgets_ms, strategy, start)
    say_loose_budgets(request)
    deployments = deployments_of(request.tables)
    return [Found(result, request.objective, request.source, deployments, request.precision) for result in results]


def with_size_limit(request: Request) -> Request:
    """The request with the limit that follows from `--max-size`. Raises `UsageError`."""
    if request.max_bytes is None:
        return request
    from ofa_search.results.size_limit import size_limit  # with all exporters

    tables, deployments = request.tables, deployments_of(request.tables)
    limit = size_limit(request.max_bytes, tables, request.objective, request.source, deployments, request.precision)
    return replace(request, max_size=limit)


def expected_evaluations(request: Request) -> int | None:
    """How many architectures are evaluated at most."""
    each = request.objective.default_evaluations if request.evaluations is None else request.evaluations
    return None if each is None else each * len(request.budgets_ms)


def results_of(
    request: Request,
    budgets_ms: Sequence[Sequence[float]],
    strategy: Strategy | None = None,
    start: Sequence[Architecture] = (),
) -> tuple[SearchResult, ...]:
    """A result for each row of budgets."""
    return search_each(
        request.space,
        request.tables,
        budgets_ms,
        request.objective,
        engine=request.engine,
        seed=request.seed,
        max_macs=request.max_macs,
        max_params=request.max_params,
        max_size=request.max_size,
        n_classes=request.source.space.n_classes,
        confidence=request.confidence,
        evaluations=request.evaluations,
        strategy=strategy,
        start=start,
    )
