"""`search`: the best architecture of a space under budgets, from tables and something to maximise."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ofa_profiler.base.units import format_count
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces import Genomes, SearchSpace, get_space
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.tables.corrections.intervals import DEFAULT_LEVEL
from ofa_profiler.tables.mixed import AnyTable
from ofa_profiler.tables.summary import Facts, facts_html, facts_text
from ofa_search.predictor import AccuracyPredictor
from ofa_search.searching.bounds.proof import prove, why_unbounded
from ofa_search.searching.engines import DEFAULT_ENGINE, Engine, get_engine
from ofa_search.searching.feasibility import find_anchor
from ofa_search.searching.functions.calling import Function
from ofa_search.searching.functions.objective import FunctionObjective
from ofa_search.searching.latency import Latency
from ofa_search.searching.objectives import Objective, PredictedAccuracy
from ofa_search.searching.problem import Constraint, Problem, SizeLimit
from ofa_search.searching.pure import best_of_each

if TYPE_CHECKING:
    from concurrent.futures import Executor

#: So long a search looks for a bound of the score after it has found its result.
PROOF_SECONDS = 0.2
#: A predictor's score of a network can differ by a little less, by what else is scored with it.
_ROUNDING = 1e-6

#: A table and the milliseconds that a network may take by it.
Limit = tuple[AnyTable, float]
#: What a search maximises: an objective, a predictor of accuracy, or a function of an architecture.
Maximised = Objective | AccuracyPredictor | Function


@dataclass(frozen=True, repr=False)
class SearchResult:
    """The best architecture found, and what it costs. Milliseconds and budgets are by table name.

    `predicted_accuracy` is top-1 in [0, 1], None when something else was maximised. `evaluations` counts
    the distinct architectures that were scored; `search_seconds` is the time of the engine alone.
    """

    architecture: Architecture
    predicted_accuracy: float | None
    latency_ms: Mapping[str, float]
    budget_ms: Mapping[str, float]
    macs: int
    params: int
    engine: str
    seed: int
    evaluations: int
    search_seconds: float
    #: The interval of each latency, which holds `interval_level` of such networks; None for a table without intervals.
    latency_interval_ms: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    interval_level: float = DEFAULT_LEVEL
    #: What the objective gives the architecture; the higher, the better.
    score: float = math.nan
    #: No network that keeps the limits has a score above this, if that is known; if `is_optimal`, this one has it.
    bound: float | None = None
    is_optimal: bool = False
    #: The most that a better network could have: points of accuracy, or what else the score counts. None if unknown.
    gap: float | None = None
    #: Why no bound is known.
    no_bound: str | None = None

    @property
    def gap_text(self) -> str:
        """The gap for people, rounded up: `at most 0.57 points`, `none, proven`, `unknown`."""
        if self.gap is None:
            return "unknown"
        if self.is_optimal:
            return "none, proven"
        if self.predicted_accuracy is None:
            return f"at most {format_count(math.ceil(self.gap))}"
        return f"at most {math.ceil(100 * self.gap - 1e-9) / 100:.2f} points"

    def _facts(self) -> Facts:
        accuracy = "none" if self.predicted_accuracy is None else f"{self.predicted_accuracy:.2%}"
        architecture = self.architecture
        summary = "; ".join(architecture.summary.splitlines())
        what = summary if architecture.choices else f"depths {summary}"
        limits = [
            (f"latency on {name}", f"{ms:.4g} of {self.budget_ms[name]:.4g} ms") for name, ms in self.latency_ms.items()
        ]
        return [
            ("space", f"{architecture.space} at {architecture.resolution} pixels, {what}"),
            ("predicted accuracy", accuracy),
            ("gap to the best possible", self.gap_text),
            *limits,
            ("MACs", format_count(self.macs)),
            ("parameters", format_count(self.params)),
            (
                "search",
                f"{self.engine}, seed {self.seed}, {self.evaluations} architectures, {self.search_seconds:.2f} s",
            ),
        ]

    def __repr__(self) -> str:
        return facts_text("SearchResult", self._facts())

    def _repr_html_(self) -> str:
        return facts_html("the network found", self._facts())


def search(
    space: SearchSpace | str,
    limits: Sequence[Limit],
    objective: Maximised,
    *,
    executor: Executor | None = None,
    engine: Engine | str = DEFAULT_ENGINE,
    seed: int = 0,
    max_macs: float | None = None,
    max_params: float | None = None,
    max_size: SizeLimit | None = None,
    confidence: float | None = None,
    evaluations: int | None = None,
) -> SearchResult:
    """The architecture of `space` with the highest objective that keeps every limit.

    With a `confidence`, for example 0.95, the upper end of the interval of that level keeps the limit, not only the
    prediction. With `evaluations`, at most so many networks are scored, and the engine plans for them.

    The objective can be a function of an architecture (as `FunctionObjective`, it can have a journal). An
    `executor` runs it elsewhere, such as in a `ProcessPoolExecutor`. Without `evaluations`, it evaluates at most 256
    architectures.

    Searched are the resolutions that all tables and the objective know. The same arguments and seed give
    the same network; how good a bound of its gap is found also depends on the speed of the machine, and so does
    what the engine `exact` finds.

    Raises `InfeasibleError` when no architecture keeps the limits (with the attainable range), `UsageError`
    when tables, objective and space do not belong together, or when a table has no interval for the `confidence`.
    """
    budgets = [budget_ms for _, budget_ms in limits]
    tables = [table for table, _ in limits]
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
    )[0]


def search_each(
    space: SearchSpace | str,
    tables: Sequence[AnyTable],
    budgets_ms: Sequence[Sequence[float]],
    objective: Maximised,
    *,
    executor: Executor | None = None,
    engine: Engine | str = DEFAULT_ENGINE,
    seed: int = 0,
    max_macs: float | None = None,
    max_params: float | None = None,
    max_size: SizeLimit | None = None,
    n_classes: int | None = None,
    confidence: float | None = None,
    evaluations: int | None = None,
) -> tuple[SearchResult, ...]:
    """As `search`, once for each row of `budgets_ms` (one budget per table), in that order.

    Each search may make so many `evaluations`. It starts from the networks found before it that keep its budgets: from
    tight to loose, no network is worse than the one before it. MACs and parameters are those of a network for
    `n_classes` classes, or for those of the space.
    """
    space = get_space(space) if isinstance(space, str) else space
    objective = objective_of(objective, executor)
    evaluations = objective.default_evaluations if evaluations is None else evaluations
    engine = get_engine(engine) if isinstance(engine, str) else engine
    space = _at_common_resolutions(space, tables, objective)
    latencies = [Latency.of(table, space, confidence) for table in tables]
    counted = space.with_classes(n_classes or space.n_classes)
    counts = _counts(counted, max_macs, max_params)
    if max_size is not None:
        counts = (*counts, max_size.constraint(space))
    results: list[SearchResult] = []
    found = np.empty((0, len(space.genes)), dtype=np.int8)
    for row in budgets_ms:
        limits = [(latency, _checked(budget)) for latency, budget in zip(latencies, row, strict=True)]
        genome, result = _run(space, counted, limits, counts, objective, engine, seed, found, evaluations)
        found = np.vstack([found, genome])
        results.append(result)
    return tuple(results)


def objective_of(given: Maximised, executor: Executor | None = None) -> Objective:
    """What is given, as an objective. Raises `UsageError` for an executor without a function."""
    if isinstance(given, Objective | AccuracyPredictor):
        if executor is not None:
            raise UsageError("an executor evaluates a function: give a function of an architecture as the objective")
        return PredictedAccuracy(given) if isinstance(given, AccuracyPredictor) else given
    return FunctionObjective(given, executor=executor)


def slowest_ms(
    space: SearchSpace, table: AnyTable, objective: Objective, confidence: float | None = None
) -> float | None:
    """The milliseconds of the slowest network that `search` considers; None if the table cannot give it exactly.

    With a `confidence`, the upper end of its interval.
    """
    cost = Latency.of(table, _at_common_resolutions(space, [table], objective), confidence).limited
    return cost.maximum()[0] if cost.is_exact else None


def _run(
    space: SearchSpace,
    counted: SearchSpace,
    limits: Sequence[tuple[Latency, float]],
    counts: tuple[Constraint, ...],
    objective: Objective,
    engine: Engine,
    seed: int,
    found: Genomes,
    evaluations: int | None,
) -> tuple[Genomes, SearchResult]:
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    constraints = (*(latency.constraint(budget_ms) for latency, budget_ms in limits), *counts)
    problem = Problem(space, objective, constraints, find_anchor(space, constraints, rng))
    # Matrices this small gain nothing from more threads, and lose much when other programs hold the cores.
    with threadpool_limits(1 if objective.default_evaluations is None else None, "blas"):
        pure, before = best_of_each(problem, engine.starter, rng, evaluations)
        left = None if evaluations is None else evaluations - before
        best = engine.search(problem, rng, np.vstack([found[problem.feasible(found)], pure]), left)
        seconds = time.perf_counter() - began
        bound = best.bound or prove(problem, best.score, PROOF_SECONDS)
    genome = best.genome[np.newaxis]
    architecture = space.decode(genome)[0]
    result = SearchResult(
        architecture=architecture,
        predicted_accuracy=objective.accuracy(best.score),
        latency_ms={latency.name: latency.predicted_ms(genome) for latency, _ in limits},
        latency_interval_ms={latency.name: latency.interval_ms(genome) for latency, _ in limits},
        interval_level=limits[0][0].level if limits else DEFAULT_LEVEL,
        budget_ms={latency.name: budget_ms for latency, budget_ms in limits},
        macs=counted.macs(architecture),
        params=counted.params(architecture),
        engine=engine.name,
        seed=seed,
        evaluations=before + best.evaluations,
        search_seconds=seconds,
        score=best.score,
        bound=None if bound is None else bound.score,
        is_optimal=bound is not None and bound.is_exact and bound.score <= best.score + _ROUNDING,
        gap=None if bound is None else _gap(objective, best.score, bound.score),
        no_bound=None if bound is not None else why_unbounded(problem),
    )
    return genome, result


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
        counts.append(Constraint("macs", "MACs", AdditiveCost.from_ops(space, lambda op: op.macs), _checked(max_macs)))
    if max_params is not None:
        cost = AdditiveCost.from_ops(space, lambda op: op.params)
        counts.append(Constraint("params", "parameters", cost, _checked(max_params)))
    return tuple(counts)


def _checked(budget: float) -> float:
    if not 0 < budget < np.inf:
        raise UsageError(f"a budget must be above zero and finite, not {budget}")
    return float(budget)
