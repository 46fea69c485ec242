"""Chains of genomes that walk along gradients under the budgets, while their temperature falls.

Each round, every chain proposes a few genomes: some of its given genes change at random or come from another chain, and
the others follow from a linear model of the objective around the chain's genome, exactly under the budgets
(`linear_model.py`). Noise on the model, and a random price for each change, make the proposals differ. A chain goes on
to the best of its proposals if that is better, or not much worse (Kirkpatrick et al., "Optimization by simulated
annealing", 1983); no genome is proposed twice, so it keeps moving.

Scores have many local maxima, which differ in half of their genes, and a chain's first rounds mostly tell how good its
maximum will be. So more chains begin than go on; and every few rounds the best stay, unless they are near a better one
(as in niching; Deb and Goldberg, 1989), the others begin again from mutated copies of them, and the temperature rises
again, though less each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes
from ofa_search.searching.engines.base import Evaluator
from ofa_search.searching.engines.linear_model import LinearModels
from ofa_search.searching.engines.moves import crossed, mutated

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Annealing:
    """Temperatures are in units of the spread of random scores; noise and prices in units of a mean gradient.

    Of chains that differ in at most this share of their genes, a `niche`, the best one is kept.
    """

    chains: int = 32
    proposals: int = 8
    rounds: int = 160
    temperatures: tuple[float, float] = (0.1, 0.01)
    noise: float = 0.1
    price: float = 0.5
    free_share: float = 0.1
    mutation_rate: float = 0.05
    crossing_share: float = 0.3
    starts_per_chain: int = 4
    renewal_rounds: int = 20
    kept_share: float = 0.25
    niche: float = 0.18
    renewal_rate: float = 0.3

    @property
    def most_evaluations(self) -> int:
        """About so many genomes are scored, if all proposals are new and under the budgets."""
        more = min(self.rounds, self.renewal_rounds) * (self.starts_per_chain - 1)
        return self.chains * (self.starts_per_chain + self.proposals * (self.rounds + more))

    def run(
        self, evaluator: Evaluator, models: LinearModels, rng: np.random.Generator, known: Genomes, scores: Array
    ) -> None:
        """Walk, from scored feasible genomes (N, G) and random ones; the evaluator remembers the best."""
        problem = evaluator.problem
        starts = self.chains * self.starts_per_chain
        drawn = evaluator.under_budgets(problem.space.sample_genomes(rng, starts), rng)
        drawn = evaluator.fresh(drawn, max(1, starts - len(known)))
        genomes, scores = np.vstack([known, drawn]), np.concatenate([scores, evaluator.score(drawn)])
        best = np.argsort(-scores, kind="stable")[:starts]
        state = _Chains(evaluator, models, rng, genomes[best], scores[best])
        for number in range(self.rounds):
            if number and number % self.renewal_rounds == 0:
                state.keep(self.chains)
                state.renew(round(self.chains * self.kept_share), self.niche, self.renewal_rate)
            state.move(*state.proposed(self), self._temperature(number) * state.spread)

    def _temperature(self, number: int) -> float:
        """Falls within the rounds between two renewals, from a start that falls from one renewal to the next."""
        first, last = self.temperatures
        period, step = divmod(number, self.renewal_rounds)
        start = first * (last / first) ** (period * self.renewal_rounds / self.rounds)
        temperature: float = start * (last / start) ** (step / self.renewal_rounds)
        return temperature


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

    def keep(self, count: int) -> None:
        """Only the best chains go on, best first."""
        self._take(np.argsort(-self.scores, kind="stable")[:count])

    def _take(self, chains: NDArray[np.intp]) -> None:
        self.genomes, self.scores, self.values = self.genomes[chains], self.scores[chains], self.values[chains]
        if self.prices is not None:
            self.prices = self.prices[chains]

    def renew(self, most: int, niche: float, rate: float) -> None:
        """All chains but the best of the best niches begin again near one of these, perhaps over the budgets.

        The chains are in order, best first; they are again, for those that are kept.
        """
        best = self._best_of_niches(most, niche * self.genomes.shape[1])
        kept, count = len(best), len(self.genomes) - len(best)
        if kept < 1 or count < 1:
            return
        self._take(np.concatenate([best, np.setdiff1d(np.arange(len(self.genomes)), best)]))
        sources = self.rng.integers(kept, size=count)
        genomes = mutated(self.evaluator.problem.space, self.genomes[sources], rate, self.rng)
        self.genomes[kept:] = self.evaluator.problem.space.canonical(genomes)
        self.scores[kept:] = -np.inf
        self.values[kept:] = self._gradients(self.genomes[kept:])
        if self.prices is not None:
            self.prices[kept:] = self.prices[sources]

    def _best_of_niches(self, most: int, radius: float) -> NDArray[np.intp]:
        """The first chains that differ from all before in more genes than `radius`."""
        found: list[int] = []
        for chain, genome in enumerate(self.genomes):
            if len(found) < most and all((genome != self.genomes[other]).sum() > radius for other in found):
                found.append(chain)
        return np.array(found, dtype=np.intp)
