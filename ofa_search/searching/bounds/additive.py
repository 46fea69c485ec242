"""The best of all networks under budgets, where the score is a sum as the costs are.

The Lagrangian relaxation gives a bound: with a price for each cost, the best sum of score minus priced costs is found
exactly (Everett, "Generalized Lagrange multiplier method", 1963). Then all networks are enumerated that the bound does
not exclude, gene by gene. The tables of the elimination say exactly how much each choice loses against the best one, so
a partial network is dropped as soon as it has lost more than there is between the bound and the best known score, or
when it cannot keep a budget any more. Of partial networks that differ only in what is decided, those are dropped that
another one dominates in cost and score.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_search.searching.bounds.elimination import Array, Domain, Sums

#: Relative rounding of sums of some hundred terms, with much room.
ROUNDING = 1e-11
_STEPS = 40
_MOST_ROWS = 300_000
#: Up to so many partial networks are compared in pairs, where there are several costs.
_MOST_PAIRED = 2000


class Best(NamedTuple):
    """No network under the budgets has a score above `bound`; `genome` (G,) has it if `is_exact`."""

    bound: float
    genome: NDArray[np.int8] | None
    is_exact: bool


@dataclass(frozen=True, eq=False)
class AdditiveProblem:
    """Maximise one sum while others keep their budgets. The first of `sums.costs` is the score."""

    sums: Sums
    budgets: Array

    @staticmethod
    def of(score: AdditiveCost, costs: Sequence[AdditiveCost], budgets: Sequence[float]) -> AdditiveProblem:
        """All are costs of one space. The score is finite."""
        return AdditiveProblem(Sums.of(score.space, [score, *costs]), np.array(budgets, dtype=np.float64))

    def best(self, score: float, deadline: float) -> Best:
        """The best network, given the `score` of a known one. At the deadline, the bound that is known then."""
        prices, bound, found = self._relaxed(score, deadline)
        if found is not None:
            score = max(score, self._score(found))
        near = self._near(prices, bound, score, deadline)
        if near is None:
            return Best(bound, found, is_exact=False)
        genomes, scores = near
        if found is not None:
            genomes, scores = np.vstack([genomes, found]), np.append(scores, self._score(found))
        is_feasible = self._is_feasible(genomes)
        highest = max(score, float(scores.max(initial=-np.inf)))
        if not is_feasible.any() or scores[is_feasible].max() < score:
            return Best(highest, None, is_exact=highest <= score)
        best = np.flatnonzero(is_feasible)[scores[is_feasible].argmax()]
        return Best(highest, genomes[best], is_exact=bool(scores[best] >= highest - self._rounding))

    @property
    def _rounding(self) -> float:
        score = self.sums.costs[0]
        return ROUNDING * (abs(score.constant) + sum(float(np.abs(part.values).max()) for part in score.parts))

    def _score(self, genome: NDArray[np.int8]) -> float:
        return float(self.sums.costs[0].evaluate(genome[np.newaxis])[0])

    def _excess(self, genomes: Genomes) -> Array:
        """What genomes (N, G) cost above the budgets (K, N)."""
        return self.sums.costs_of(genomes)[1:] - self.budgets[:, np.newaxis]

    def _is_feasible(self, genomes: Genomes) -> NDArray[np.bool_]:
        return np.asarray((self._excess(genomes) <= 0).all(axis=0))

    # --- the bound -------------------------------------------------------------------------------------

    def _relaxed(self, score: float, deadline: float) -> tuple[Array, float, NDArray[np.int8] | None]:
        """Prices (K,), the lowest bound, and the best network under the budgets that was seen."""
        dual = _Dual(self, self.sums.everything)
        prices = best_prices = np.zeros(len(self.budgets))
        bound, found = np.inf, None
        low, high = 0.0, np.inf  # of the only price, if there is one
        for _ in range(_STEPS):
            value, genome = dual.at(prices)
            excess = self._excess(genome[np.newaxis])[:, 0]
            if value < bound:
                bound, best_prices = value, prices
            if (excess <= 0).all() and (found is None or self._score(genome) > self._score(found)):
                found, score = genome, max(score, self._score(genome))
            slope = np.where((prices > 0) | (excess > 0), excess, 0.0)
            if bound <= score + self._rounding or not slope.any() or time.perf_counter() > deadline:
                break
            step = (value - score) / float(((slope / self.budgets) ** 2).sum()) * slope / self.budgets**2
            prices = np.maximum(prices + step, 0.0)
            if len(prices) == 1:  # bisection, where a step would leave the interval
                low, high = (max(low, prices[0] - step[0]), high) if excess[0] > 0 else (low, prices[0] - step[0])
                if high < np.inf:
                    prices = np.array([(low + high) / 2])
        return best_prices, bound + self._rounding, found

    # --- the networks that it leaves -----------------------------------------------------------------------

    def _near(self, prices: Array, bound: float, score: float, deadline: float) -> tuple[Genomes, Array] | None:
        """All genomes (N, G) that may be better than `score`, without dominated ones, and their scores.

        None if there are too many.
        """
        losses = [Losses.of(self.sums, np.array([-1.0, *prices]))]
        limits = [bound - score + 2 * self._rounding]
        for number, budget in enumerate(self.budgets):
            only = np.zeros(1 + len(prices))
            only[1 + number] = 1.0
            losses.append(Losses.of(self.sums, only))
            limits.append(budget * (1 + ROUNDING) + losses[-1].highest)
        partial = _Partial.start(len(self.sums.space.genes), len(losses))
        for number in reversed(range(len(self.sums.buckets))):
            partial = partial.expanded(self.sums, number, [each.tables[number] for each in losses])
            partial = partial.kept(np.asarray((partial.lost <= np.array(limits)).all(axis=1)))
            partial = partial.kept(self._undominated(partial, number, prices))
            if len(partial.genomes) > _MOST_ROWS or time.perf_counter() > deadline:
                return None
        genomes = self.sums.space.canonical(partial.genomes)
        return genomes, self.sums.costs[0].evaluate(genomes)

    def _undominated(self, partial: _Partial, number: int, prices: Array) -> NDArray[np.bool_]:
        """Which partial networks no other one dominates, after the step `number`."""
        later = {gene for bucket in self.sums.buckets[:number] for gene in bucket.scope}
        live = [gene for gene in partial.decided if gene in later]
        _, state = np.unique(partial.genomes[:, live], axis=0, return_inverse=True)
        costs = partial.lost[:, 1:]
        scores = costs @ prices - partial.lost[:, 0]
        return _undominated(state.reshape(-1), costs, scores)


def _undominated(state: NDArray[np.intp], costs: Array, scores: Array) -> NDArray[np.bool_]:
    """Which of N rows no other row of the same state (N,) beats in all costs (N, K) and in score (N,)."""
    count, kinds = costs.shape
    if kinds > 1 and count > _MOST_PAIRED:
        return np.ones(count, dtype=np.bool_)
    if kinds > 1:
        beats = (state[:, np.newaxis] == state) & (scores[:, np.newaxis] >= scores)
        for cost in costs.T:
            beats &= cost[:, np.newaxis] <= cost
        beats &= ~beats.T | (np.arange(count)[:, np.newaxis] < np.arange(count))  # of equal ones, the first stays
        np.fill_diagonal(beats, val=False)
        return np.asarray(~beats.any(axis=0))
    order = np.lexsort((-scores, *costs.T, state))
    ranks = np.unique(scores, return_inverse=True)[1].reshape(-1)[order]
    keys = state[order] * (count + 1) + ranks + 1
    highest = np.maximum.accumulate(keys)
    kept = np.ones(count, dtype=np.bool_)
    kept[order[1:]] = keys[1:] > highest[:-1]
    return kept


@dataclass(frozen=True, eq=False)
class _Dual:
    problem: AdditiveProblem
    domain: Domain

    def at(self, prices: Array) -> tuple[float, NDArray[np.int8]]:
        """The bound for these prices, and the network that has it."""
        sums = self.problem.sums
        values = np.zeros((int(sums.starts[-1]), 1))
        genome = sums.best(values, np.array([-1.0, *prices])[:, np.newaxis], self.domain)[0]
        excess = self.problem._excess(genome[np.newaxis])[:, 0]
        return self.problem._score(genome) - float(prices @ excess), genome


class Losses(NamedTuple):
    """For each step, how much every choice loses against the best one; and the best sum."""

    tables: list[Array]
    highest: float

    @staticmethod
    def of(sums: Sums, prices: Array) -> Losses:
        """For a sum of priced costs (K,)."""
        values = np.zeros((int(sums.starts[-1]), 1))
        tables, highest = sums.tables(values, prices[:, np.newaxis], sums.everything)
        losses = [
            (table.max(axis=bucket.scope.index(bucket.gene), keepdims=True) - table)[..., 0]
            for bucket, table in zip(sums.buckets, tables, strict=True)
        ]
        return Losses(losses, float(highest[0]))


@dataclass(frozen=True, eq=False)
class _Partial:
    """Partial networks: genomes (N, G), of which some genes are decided, and what these lost, by each sum (N, S)."""

    genomes: Genomes
    lost: Array
    decided: tuple[int, ...]

    @staticmethod
    def start(genes: int, sums: int) -> _Partial:
        return _Partial(np.zeros((1, genes), dtype=np.int8), np.zeros((1, sums)), ())

    def kept(self, is_kept: NDArray[np.bool_]) -> _Partial:
        return _Partial(self.genomes[is_kept], self.lost[is_kept], self.decided)

    def expanded(self, sums: Sums, number: int, tables: Sequence[Array]) -> _Partial:
        """With each choice of the gene of the step `number`."""
        bucket = sums.buckets[number]
        choices = len(sums.space.genes[bucket.gene].choices)
        genomes = np.repeat(self.genomes, choices, axis=0)
        genomes[:, bucket.gene] = np.tile(np.arange(choices, dtype=np.int8), len(self.genomes))
        lost = np.repeat(self.lost, choices, axis=0)
        at = tuple(genomes[:, gene].astype(np.intp) for gene in bucket.scope)
        lost += np.stack([table[at] for table in tables], axis=1)
        expanded = _Partial(genomes, lost, (*self.decided, bucket.gene))
        switch, switch_from = sums.space.genes[bucket.gene].switch, sums.space.genes[bucket.gene].switch_from
        if switch not in self.decided or switch is None:
            return expanded
        return expanded.kept((genomes[:, switch] >= switch_from) | (genomes[:, bucket.gene] == 0))
