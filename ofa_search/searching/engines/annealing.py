"""Chains of genomes that walk along gradients under the budgets, while their temperature falls.

Each round, every chain proposes a few genomes: some of its given genes change at random or come from another chain, and
the others follow from a linear model of the objective around the chain's genome, exactly under the budgets
(`linear_model.py`). Noise on the model, and a random price for each change, make the proposals differ. A chain goes on
to the best of its proposals if that is better, or not much worse (Kirkpatrick et al., "Optimization by simulated
annealing", 1983); no genome is proposed twice, so it keeps moving. Now and then, the best chains replace the worst.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes
from ofa_search.searching.engines.base import Evaluator, pull_to_anchor
from ofa_search.searching.engines.linear_model import LinearModels
from ofa_search.searching.engines.moves import crossed, mutated

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Annealing:
    """Temperatures are in units of the spread of random scores; noise and prices in units of a mean gradient."""

    chains: int = 32
    proposals: int = 8
    rounds: int = 250
    temperatures: tuple[float, float] = (0.1, 0.01)
    noise: float = 0.1
    price: float = 0.5
    free_share: float = 0.1
    mutation_rate: float = 0.12
    crossing_share: float = 0.3
    culling_rounds: int = 60
    culled_share: float = 0.25

    def run(
        self, evaluator: Evaluator, models: LinearModels, rng: np.random.Generator, known: Genomes, scores: Array
    ) -> None:
        """Walk, from scored feasible genomes (N, G) and random ones; the evaluator remembers the best."""
        problem = evaluator.problem
        drawn = pull_to_anchor(problem, problem.space.sample_genomes(rng, self.chains), rng)
        drawn = evaluator.fresh(drawn, max(1, self.chains - len(known)))
        genomes, scores = np.vstack([known, drawn]), np.concatenate([scores, evaluator.score(drawn)])
        best = np.argsort(-scores, kind="stable")[: self.chains]
        state = _Chains(evaluator, models, rng, genomes[best], scores[best])
        first, last = (temperature * state.spread for temperature in self.temperatures)
        for number in range(self.rounds):
            state.move(*state.proposed(self), first * (last / first) ** (number / self.rounds))
            if number % self.culling_rounds == self.culling_rounds - 1:
                state.cull(round(self.chains * self.culled_share))


class _Chains:
    """The genome of each chain, with its score, the gradients there, and the logarithm of the price that it had."""

    def __init__(
        self, evaluator: Evaluator, models: LinearModels, rng: np.random.Generator, genomes: Genomes, scores: Array
    ) -> None:
        self.evaluator, self.models, self.rng, self.genomes, self.scores = evaluator, models, rng, genomes, scores
        self.values = self._gradients(genomes)
        self.prices: NDArray[np.float64] | None = None
        self.spread = float(scores.std()) or 1e-9

    def _gradients(self, genomes: Genomes) -> Array:
        problem = self.evaluator.problem
        values = problem.objective.gradients(problem.space, genomes)
        assert values is not None, "the caller has asked before"
        return values.astype(np.float32)

    def proposed(self, settings: Annealing) -> tuple[Genomes, NDArray[np.intp], NDArray[np.float64]]:
        """New genomes under the budgets, and the chain and the price of each."""
        rng, space = self.rng, self.evaluator.problem.space
        chains = np.repeat(np.arange(len(self.genomes)), settings.proposals)
        count = len(chains)
        parents, values = self.genomes[chains], self.values[chains]
        others = self.genomes[rng.integers(len(self.genomes), size=count)]
        is_crossed = rng.random((count, 1)) < settings.crossing_share
        changed = np.where(is_crossed, crossed(space, parents, others, rng), parents)
        given = mutated(space, changed, settings.mutation_rate, rng)[:, self.models.given]
        size = float(np.abs(values).mean()) or 1.0
        amplitude = size * settings.noise * np.exp(rng.standard_normal((count, 1), dtype=np.float32))
        values = values + rng.standard_normal(values.shape, dtype=np.float32) * amplitude
        lost = size * settings.price * np.exp(rng.standard_normal(count, dtype=np.float32))
        lost[rng.random(count) < settings.free_share] = 0.0
        weights = rng.dirichlet(np.ones(len(self.models.budgets)), count)
        prices = None if self.prices is None else self.prices[chains]
        found = self.models.best(parents, values, lost, given, weights, prices)
        order = rng.permutation(len(found.genomes))
        return found.genomes[order], chains[found.models[order]], found.prices[order]

    def move(self, genomes: Genomes, chains: NDArray[np.intp], prices: NDArray[np.float64], temperature: float) -> None:
        """Score the proposals, and go on with the best of each chain, if it is good enough."""
        if self.prices is None:
            self.prices = np.full(len(self.genomes), np.median(prices)) if len(prices) else None
        genomes, rows = self.evaluator.fresh_rows(genomes)
        if not len(rows):
            return
        assert self.prices is not None, "there are proposals"
        chains, prices = chains[rows], prices[rows]
        scores = self.evaluator.score(genomes)
        order = np.lexsort((-scores, chains))
        best = order[np.unique(chains[order], return_index=True)[1]]
        limit = self.scores[chains[best]] + temperature * np.log(self.rng.random(len(best)))
        best = best[scores[best] > limit]
        moved = chains[best]
        self.genomes[moved], self.scores[moved], self.prices[moved] = genomes[best], scores[best], prices[best]
        if len(best):
            self.values[moved] = self._gradients(genomes[best])

    def cull(self, count: int) -> None:
        """The best chains replace the worst, at most half of them: few networks under the budgets make few chains."""
        count = min(count, len(self.scores) // 2)
        order = np.argsort(-self.scores, kind="stable")
        best, worst = order[:count], order[len(order) - count :]
        for state in (self.genomes, self.scores, self.values, self.prices):
            if state is not None:
                state[worst] = state[best]
