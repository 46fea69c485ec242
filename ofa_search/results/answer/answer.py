"""A network that was found, with what surrounds it, and how a page spells it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ofa_search.results.found import Found
from ofa_search.searching.around import Around

#: A page tells about at most so many tables in detail.
TABLES = 4


@dataclass(frozen=True)
class Answer:
    """A network that was found, and what surrounds it."""

    found: Found
    around: Around

    @property
    def table(self) -> str:
        """The name of the first table."""
        return next(iter(self.found.result.budget_ms))

    @property
    def budget(self) -> str:
        """`20 ms`; of several tables `20 and 35 ms`."""
        budgets = [f"{ms:g}" for ms in self.found.result.budget_ms.values()]
        return f"{' and '.join(budgets)} ms" if len(budgets) <= TABLES else f"{len(budgets)} tables"

    @property
    def limit_ms(self) -> float:
        """The budget of the first table, as a prediction."""
        limit = self.around.problem.constraints[0]
        limited = float(limit.cost.evaluate(self.around.problem.anchor[np.newaxis])[0])
        return limit.budget * self.around.answer.latency_ms[self.table] / limited

    def on(self, table: str) -> str:
        """` on board`, if there are several tables."""
        return f" on {table}" if len(self.around.tables) > 1 else ""
