"""`search`: the best architecture of a space under budgets, from tables and something to maximise."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces import Genomes, SearchSpace, as_space
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.spaces.narrowing import Fixed, narrowed
from ofa_profiler.tables.corrections.intervals import DEFAULT_LEVEL
from ofa_profiler.tables.mixed import AnyTable
from ofa_search.searching.arguments import (
    Limit,
    Maximised,
    checked_budget,
    checked_seed,
    objective_of,
    tables_and_budgets,
)
from ofa_search.searching.bounds.proof import prove, why_unbounded
from ofa_search.searching.engines import Engine, get_engine
from ofa_search.searching.feasibility import find_anchor
from ofa_search.searching.latency import Latency
from ofa_search.searching.neighbours import is_near, starts
from ofa_search.searching.objectives import Objective
from ofa_search.searching.problem import Bound, Constraint, Mask, Problem, Result, SizeLimit
from ofa_search.searching.pure import best_of_each
from ofa_search.searching.result import SearchResult
from ofa_search.searching.strategies import InOrder, Rows, Solved, Strategy

__all__ = ["SearchResult", "search", "search_each", "slowest_ms"]

if TYPE_CHECKING:
    from concurrent.futures import Executor

#: So long a search looks for a bound of the score after it has found its result: at most 0.2 s, with a little room.
PROOF_SECONDS = 0.19
#: A predictor's score of a network can differ by a little less, by what else is scored with it.
_ROUNDING = 1e-6


def search(
    space: SearchSpace | str,
    limits: Sequence[Limit],
    objective: Maximised,
    *,
    executor: Executor | None = None,
    engine: Engine | str | None = None,
    seed: int = 0,
    max_macs: float | None = None,
    max_params: float | None = None,
    max_size: SizeLimit | None = None,
    confidence: float | None = None,
    evaluations: int | None = None,
    fix: Fixed | None = None,
) -> SearchResult:
    """The architecture of `space` with the highest objective that keeps every limit.

    `fix` gives choices their values, for example `{"resolution": 192, "stage0.kernel_size": [3, 5]}`
    (`ofa_profiler/spaces/narrowing.py`).

    With a `confidence`, for example 0.95, the upper end of the interval of that level keeps the limit, not only the
    prediction. With `evaluations`, at most so many networks are scored, and the engine plans for them.

    The objective can be a function of an architecture (as `FunctionObjective`, it can have a journal). An
    `executor` runs it elsewhere, such as in a `ProcessPoolExecutor`. Without `evaluations`, it evaluates at most 256
    architectures. Without an `engine`, `smbo` searches for a function, and `evolutionary` for all else.

    Searched are the resolutions that all tables and the objective know. The same arguments and seed give
    the same network; how good a bound of its gap is found also depends on the speed of the machine, and so does
    what the engine `exact` finds.

    Raises `InfeasibleError` when no architecture keeps the limits (with the attainable range), `UsageError`
    when tables, objective and space do not belong together, or when a table has no interval for the `confidence`.
    """
    tables, budgets = tables_and_budgets(limits)
    return search_each(
        space,
        tables,
        [budgets],
        objective,
        executor=executor,
        engine=engine,
        seed=seed,
        max_macs=max_macs,
        max_params=max_params,
        max_size=max_size,
        confidence=confidence,
        evaluations=evaluations,
        fix=fix,
    )[0]


def search_each(
    space: SearchSpace | str,
    tables: Sequence[AnyTable],
    budgets_ms: Sequence[Sequence[float]],
    objective: Maximised,
    *,
    executor: Executor | None = None,
    engine: Engine | str | None = None,
    seed: int = 0,
    max_macs: float | None = None,
    max_params: float | None = None,
    max_size: SizeLimit | None = None,
    n_classes: int | None = None,
    confidence: float | None = None,
    evaluations: int | None = None,
    fix: Fixed | None = None,
    strategy: Strategy | None = None,
    start: Sequence[Architecture] = (),
) -> tuple[SearchResult, ...]:
    """As `search`, once for each row of `budgets_ms` (one budget per table), in that order.

    Each search may make so many `evaluations`. It starts from the networks found before it that keep its budgets: from
    tight to loose, no network is worse than the one before it. Another `strategy` has another order; `start` are
    networks of the space to start from, if they keep the budgets. MACs and parameters are those of a network for
    `n_classes` classes, or for those of the space.
    """
    space = narrowed(as_space(space), fix or {})
    objective, seed = objective_of(objective, executor), checked_seed(seed)
    evaluations = objective.default_evaluations if evaluations is None else evaluations
    engine = engine or objective.default_engine
    engine = get_engine(engine) if isinstance(engine, str) else engine
    space = _at_common_resolutions(space, tables, objective)
    latencies = [Latency.of(table, space, confidence) for table in tables]
    counted = space.with_classes(n_classes or space.n_classes)
    counts = _counts(counted, max_macs, max_params)
    if max_size is not None:
        counts = (*counts, max_size.constraint(space))
    known = _known(space, start)
    rows = _Rows(space, counted, latencies, counts, objective, engine, seed, evaluations, budgets_ms, known)
    return tuple((strategy or InOrder()).run(rows))


def slowest_ms(
    space: SearchSpace, table: AnyTable, objective: Objective, confidence: float | None = None
) -> float | None:
    """The milliseconds of the slowest network that `search` considers; None if the table cannot give it exactly.

    With a `confidence`, the upper end of its interval.
    """
    cost = Latency.of(table, _at_common_resolutions(space, [table], objective), confidence).limited
    return cost.maximum()[0] if cost.is_exact else None


@dataclass(frozen=True)
class _Rows(Rows):
    """The searches of `search_each`, which differ in nothing but their budgets."""

    space: SearchSpace
    counted: SearchSpace
    latencies: Sequence[Latency]
    counts: tuple[Constraint, ...]
    objective: Objective
    engine: Engine
    seed: int
    evaluations: int | None
    budgets_ms: Sequence[Sequence[float]]
    start: Genomes

    @property
    def count(self) -> int:
        return len(self.budgets_ms)

    @property
    def genes(self) -> int:
        return len(self.space.genes)

    def _constraints(self, number: int) -> tuple[Constraint, ...]:
        row = zip(self.latencies, self.budgets_ms[number], strict=True)
        return (*(latency.constraint(checked_budget(budget_ms)) for latency, budget_ms in row), *self.counts)

    def keeps(self, number: int, genomes: Genomes) -> Mask:
        keeps: Mask = np.all([constraint.met(genomes) for constraint in self._constraints(number)], axis=0)
        return keeps

    def solve(self, number: int, found: Genomes, *, quick: bool = False, share: float = 1.0) -> Solved:
        began = time.perf_counter()
        rng, constraints = np.random.default_rng(self.seed), self._constraints(number)
        problem = Problem(self.space, self.objective, constraints, find_anchor(self.space, constraints, rng))
        found = np.vstack([self.start, found])
        # Matrices this small gain nothing from more threads, and lose much when other programs hold the cores.
        with threadpool_limits(1 if self.objective.default_evaluations is None else None, "blas"):
            best, before = self._best(problem, found, rng, quick=quick and is_near(problem, found))
            seconds = time.perf_counter() - began
            bound = best.bound or prove(problem, best.score, share * PROOF_SECONDS)
        evaluations = before + best.evaluations
        return Solved(best.genome[np.newaxis], self._result(number, problem, best, bound, evaluations, seconds))

    def _best(self, problem: Problem, found: Genomes, rng: np.random.Generator, *, quick: bool) -> tuple[Result, int]:
        """The best network, and how many were scored before the engine began."""
        if quick:
            return self.engine.quick.search(problem, rng, starts(problem, found, rng), self.evaluations), 0
        pure, before = best_of_each(problem, self.engine.starter, rng, self.evaluations)
        left = None if self.evaluations is None else self.evaluations - before
        return self.engine.search(problem, rng, np.vstack([found[problem.feasible(found)], pure]), left), before

    def _result(
        self, number: int, problem: Problem, best: Result, bound: Bound | None, evaluations: int, seconds: float
    ) -> SearchResult:
        genome = best.genome[np.newaxis]
        architecture = self.space.decode(genome)[0]
        names = [latency.name for latency in self.latencies]
        return SearchResult(
            architecture=architecture,
            predicted_accuracy=self.objective.accuracy(best.score),
            latency_ms={latency.name: latency.predicted_ms(genome) for latency in self.latencies},
            latency_interval_ms={latency.name: latency.interval_ms(genome) for latency in self.latencies},
            interval_level=self.latencies[0].level if self.latencies else DEFAULT_LEVEL,
            budget_ms={name: float(ms) for name, ms in zip(names, self.budgets_ms[number], strict=True)},
            macs=self.counted.macs(architecture),
            params=self.counted.params(architecture),
            engine=self.engine.name,
            seed=self.seed,
            evaluations=evaluations,
            search_seconds=seconds,
            score=best.score,
            bound=None if bound is None else bound.score,
            is_optimal=bound is not None and bound.is_exact and bound.score <= best.score + _ROUNDING,
            gap=None if bound is None else _gap(self.objective, best.score, bound.score),
            no_bound=None if bound is not None else why_unbounded(problem),
        )

    def settled(self, solved: Solved, best: Solved, bound: float | None) -> SearchResult:
        own, score = solved.result, best.result.score
        if bound is not None:
            bound = max(bound, score)
        return replace(
            best.result,
            budget_ms=own.budget_ms,
            evaluations=own.evaluations,
            search_seconds=own.search_seconds,
            bound=bound,
            is_optimal=bound is not None and own.is_optimal and bound <= score + _ROUNDING,
            gap=None if bound is None else _gap(self.objective, score, bound),
            no_bound=own.no_bound,
        )


def _known(space: SearchSpace, start: Sequence[Architecture]) -> Genomes:
    """The networks of the space among these."""
    resolutions = (*space.resolutions, *(() if space.resolutions else (None,)))
    return space.encode([each for each in start if each.resolution in resolutions])


def _gap(objective: Objective, score: float, bound: float) -> float:
    """How far a score is below a bound: in points of accuracy, if it is an accuracy."""
    if bound <= score + _ROUNDING:
        return 0.0
    accuracy, highest = objective.accuracy(score), objective.accuracy(bound)
    if accuracy is None or highest is None:
        return max(0.0, bound - score)
    return max(0.0, 100 * (highest - accuracy))


def problem_of(
    space: SearchSpace,
    tables: Sequence[AnyTable],
    result: SearchResult,
    objective: Objective,
    *,
    max_macs: float | None = None,
    max_params: float | None = None,
    max_size: SizeLimit | None = None,
    n_classes: int | None = None,
    confidence: float | None = None,
) -> Problem:
    """The problem that a search with these arguments has answered by `result`, which is its anchor.

    The first constraints are those of the tables, in their order.
    """
    space = _at_common_resolutions(space, tables, objective)
    budgets = [Latency.of(table, space, confidence).constraint(result.budget_ms[table.name]) for table in tables]
    counts = _counts(space.with_classes(n_classes or space.n_classes), max_macs, max_params)
    sizes = () if max_size is None else (max_size.constraint(space),)
    return Problem(space, objective, (*budgets, *counts, *sizes), space.encode([result.architecture])[0])


def _at_common_resolutions(space: SearchSpace, tables: Sequence[AnyTable], objective: Objective) -> SearchSpace:
    """The space at all resolutions that every table and the objective know. Raises `UsageError` when there is none."""
    known = set(objective.resolutions(space))
    if space.resolution_gene is None:
        return space
    for table in tables:
        covered = table.complete_resolutions(space)
        if not covered:
            table.cost(space)  # raises an error that names what the table lacks
        if not known & set(covered):
            raise UsageError(
                f"table {table.name} knows {space.name} at resolutions {_listed(covered)}, "
                f"what is maximised ({objective.name}) and the tables before it at {_listed(known)}: none in common"
            )
        known &= set(covered)
    return space.with_resolutions(sorted(known))


def _listed(values: Sequence[int] | set[int]) -> str:
    return ", ".join(map(str, sorted(values)))


def _counts(space: SearchSpace, max_macs: float | None, max_params: float | None) -> tuple[Constraint, ...]:
    counts = []
    if max_macs is not None:
        counts.append(
            Constraint("macs", "MACs", AdditiveCost.from_ops(space, lambda op: op.macs), checked_budget(max_macs))
        )
    if max_params is not None:
        cost = AdditiveCost.from_ops(space, lambda op: op.params)
        counts.append(Constraint("params", "parameters", cost, checked_budget(max_params)))
    return tuple(counts)
