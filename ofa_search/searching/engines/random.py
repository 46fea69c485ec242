"""Random search: the baseline that every other engine has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes
from ofa_search.searching.engines.base import Engine, Evaluator


@dataclass(frozen=True)
class Random(Engine):
    """Scores `rounds` times `batch` random architectures; those over a budget are replaced by near ones under it.

    If evaluations are limited, it makes as many rounds as they allow.
    """

    name = "random"
    batch: int = 1024
    rounds: int = 64

    def _search(
        self, evaluator: Evaluator, rng: np.random.Generator, known: Genomes, scores: NDArray[np.float64]
    ) -> None:
        del known, scores
        problem = evaluator.problem
        rounds = self.rounds if evaluator.left == np.inf else ceil(evaluator.left / self.batch)
        for _ in range(rounds):
            drawn = problem.space.sample_genomes(rng, self.batch)
            evaluator.score(evaluator.fresh(evaluator.under_budgets(drawn, rng)))
