"""What callers of `search` give, checked before anything is computed: a mistake is told in one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from ofa_profiler.errors import UsageError
from ofa_profiler.tables.mixed import AnyTable, MixedTable
from ofa_profiler.tables.table import LatencyTable
from ofa_search.predictor import AccuracyPredictor
from ofa_search.searching.functions.calling import Function
from ofa_search.searching.functions.objective import FunctionObjective
from ofa_search.searching.objectives import Objective, PredictedAccuracy

if TYPE_CHECKING:
    from concurrent.futures import Executor

#: A table and the milliseconds that a network may take by it.
Limit = tuple[AnyTable, float]
#: What a search maximises: an objective, a predictor of accuracy, or a function of an architecture.
Maximised = Objective | AccuracyPredictor | Function


def tables_and_budgets(limits: Sequence[Limit]) -> tuple[list[AnyTable], list[float]]:
    """The tables, and the budget of each. Raises `UsageError` for what is no list of such pairs."""
    pairs: list[Any] = list(limits) if isinstance(limits, Iterable) else [limits]
    for pair in pairs:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], LatencyTable | MixedTable)):
            raise UsageError(f"limits must be a list of (table, milliseconds), not {_shown(pair)}")
    return [table for table, _ in pairs], [budget for _, budget in pairs]


def objective_of(given: Maximised, executor: Executor | None = None) -> Objective:
    """What is given, as an objective. Raises `UsageError` for what is none, and for an executor without a function."""
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise UsageError(f"an executor is one of concurrent.futures, not {_shown(executor)}")
    if isinstance(given, Objective | AccuracyPredictor):
        if executor is not None:
            raise UsageError("an executor evaluates a function: give a function of an architecture as the objective")
        return PredictedAccuracy(given) if isinstance(given, AccuracyPredictor) else given
    if not callable(given):
        kinds = "an objective, an AccuracyPredictor or a function of an architecture"
        raise UsageError(f"what is maximised must be {kinds}, not {_shown(given)}")
    return FunctionObjective(given, executor=executor)


def checked_budget(budget: float) -> float:
    """A limit as a number. Raises `UsageError`."""
    if not (isinstance(budget, Real) and 0 < budget < inf):
        raise UsageError(f"a budget must be a number above zero and finite, not {_shown(budget)}")
    return float(budget)


def checked_seed(seed: int) -> int:
    """Raises `UsageError` unless it is a whole number, 0 or more."""
    if not (isinstance(seed, Integral) and seed >= 0):
        raise UsageError(f"a seed must be a whole number, 0 or more, not {_shown(seed)}")
    return int(seed)


def _shown(value: object) -> str:
    return f"{value!r:.60}"
