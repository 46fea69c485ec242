"""The latency of networks by one table, as a search sees it."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.errors import InfeasibleError, InputFileError
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import Cost
from ofa_profiler.tables.corrections.intervals import DEFAULT_LEVEL, checked_level
from ofa_profiler.tables.mixed import AnyTable
from ofa_search.searching.problem import Constraint


@dataclass(frozen=True)
class Latency:
    """The predictions of the table `name`, their intervals, and what a budget limits: `predicted`, or the upper end."""

    name: str
    predicted: Cost
    limited: Cost
    #: The intervals hold this share of the networks.
    level: float
    #: From a prediction to both ends of its interval; None if the table has none.
    factors: tuple[float, float] | None

    @staticmethod
    def of(table: AnyTable, space: SearchSpace, confidence: float | None) -> Latency:
        """With a `confidence`, the upper end of its interval is limited.

        It is a multiple of the prediction, so its optimum is exact where that of the prediction is. Raises `UsageError`
        if the table has no such interval, or does not cover the space.
        """
        cost = _usable(table, space)
        if confidence is None:
            return Latency(table.name, cost, cost, DEFAULT_LEVEL, table.correction.interval_factors(DEFAULT_LEVEL))
        factors = table.interval_factors(checked_level(confidence, "a confidence"))
        return Latency(table.name, cost, cost.scaled(factors[1]), confidence, factors)

    def constraint(self, budget_ms: float) -> Constraint:
        """What a network must keep."""
        return Constraint(self.name, "ms", self.limited, budget_ms)

    def predicted_ms(self, genome: Genomes) -> float:
        """The prediction for one genome (1, G)."""
        return float(self.predicted.evaluate(genome)[0])

    def interval_ms(self, genome: Genomes) -> tuple[float, float] | None:
        """The interval of one genome (1, G)."""
        if self.factors is None:
            return None
        predicted, (low, high) = self.predicted_ms(genome), self.factors
        # What was limited is given to the last bit, so that it keeps the budget.
        is_limited = self.limited is not self.predicted
        return predicted * low, float(self.limited.evaluate(genome)[0]) if is_limited else predicted * high


def _usable(table: AnyTable, space: SearchSpace) -> Cost:
    cost = table.cost(space)
    if cost.is_exact:
        try:
            cost.minimum()
        except InfeasibleError as error:
            raise InputFileError(table.path or table.name, f"{error}: its rows failed") from None
    return cost
