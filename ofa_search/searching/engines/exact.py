"""Exact search: it goes on from the result of evolution until no better network can exist, or its time is up.

See `bounds/`: a sum as the objective is maximised by enumeration under a bound, a predictor by branch and bound. The
result has the bound that was reached.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import count
from math import inf

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes
from ofa_search.searching.bounds.branching import MOST_SCORED
from ofa_search.searching.bounds.proof import Proof, why_unbounded
from ofa_search.searching.engines.base import Engine, Evaluator, Spent
from ofa_search.searching.engines.evolutionary import Evolutionary
from ofa_search.searching.problem import Problem


@dataclass(frozen=True)
class Exact(Engine):
    """After evolution, it takes at most so many seconds, evaluations and steps of branch and bound.

    If evaluations are limited, evolution gets as many as it takes without a limit, and at least the `share` of them, so
    that a limit costs no accuracy; one is left to score what a proof finds.
    """

    name = "exact"
    start: Evolutionary = field(default_factory=Evolutionary)
    seconds: float = 60.0
    evaluations: int = 1_000_000
    steps: int = 1_000_000
    share: float = 0.5

    @property
    def starter(self) -> Engine:
        return self.start

    def refusal(self, problem: Problem) -> str | None:
        return why_unbounded(problem)

    def _search(
        self, evaluator: Evaluator, rng: np.random.Generator, known: Genomes, scores: NDArray[np.float64]
    ) -> None:
        evaluator.spend(self._share(evaluator.left), lambda: self.start._search(evaluator, rng, known, scores))
        most = evaluator.evaluations + self.evaluations

        def scored(genomes: Genomes) -> NDArray[np.float64]:
            if len(genomes) > evaluator.left:
                raise Spent  # a part of which only some networks are scored proves nothing
            return evaluator.score(evaluator.fresh(genomes))

        proof = Proof(evaluator.problem, evaluator.best_score, scored)
        steps = count()

        def may_go_on() -> bool:
            return evaluator.evaluations < most and evaluator.left >= MOST_SCORED and next(steps) < self.steps

        proof.run(time.perf_counter() + self.seconds, may_go_on)
        evaluator.bound = proof.bound

    def _share(self, left: float) -> float:
        """Of so many evaluations, those for evolution."""
        if not 1 < left < inf:
            return self.share
        return max(self.share * left, min(left - 1, self.start.most_evaluations)) / left
