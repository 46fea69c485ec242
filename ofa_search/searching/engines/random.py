"""Random search: the baseline that every other engine has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes
from ofa_search.searching.engines.base import Engine, Evaluator, pull_to_anchor


@dataclass(frozen=True)
class Random(Engine):
    """Scores `rounds` times `batch` random architectures, pulled under the budgets where they are over."""

    name = "random"
    batch: int = 1024
    rounds: int = 64

    def _search(
        self, evaluator: Evaluator, rng: np.random.Generator, known: Genomes, scores: NDArray[np.float64]
    ) -> None:
        del known, scores
        problem = evaluator.problem
        for _ in range(self.rounds):
            drawn = problem.space.sample_genomes(rng, self.batch)
            evaluator.score(evaluator.fresh(pull_to_anchor(problem, drawn, rng)))
