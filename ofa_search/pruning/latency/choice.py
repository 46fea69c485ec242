"""The most valuable units within a budget.

Maximise the value of the kept units subject to a cost; both are sums over slots. It is a knapsack problem on a graph.
Its Lagrangian relaxation minimises `multiplier * cost - value` exactly (`AdditiveCost.minimum`). The multiplier is
found on the hull of cost and value (Everett, "Generalized Lagrange multiplier method", 1963). The best network on the
hull leaves a gap to the budget, which changes of one or two genes fill. The relaxation also gives a bound of the value,
so that it is known how much better another choice could be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import InfeasibleError
from ofa_profiler.spaces.costs import AdditiveCost, Part
from ofa_profiler.spaces.genes import Genomes
from ofa_search.pruning.latency.space import PruningSpace

#: Relative differences of this size are rounding.
_EPSILON = 1e-9
#: The multiplier is exact after a few steps; this ends a loop of rounding.
_MOST_STEPS = 100
#: Changes of two genes are tried for spaces with at most so many of them.
_MOST_PAIRS = 1 << 19


@dataclass(frozen=True)
class Unit:
    """How a cost is written: `12.345ms`, `40.13M MACs`."""

    name: str = ""
    size: float = 1.0
    digits: int = 3

    def spelled(self, value: float, *, up: bool = False) -> str:
        """Rounded down, or up."""
        steps = 10**self.digits
        rounded = (ceil if up else floor)(round(value / self.size * steps, 6)) / steps
        return f"{rounded:.10g}{self.name}"


MILLISECONDS, MEGA_MACS = Unit("ms"), Unit("M MACs", 1e6, 2)


@dataclass(frozen=True, eq=False)
class Choice:
    """A network: its genome (G,), value and cost. No network within the budget has a value above `bound`."""

    genome: Genomes
    value: float
    cost: float
    bound: float

    @property
    def gap(self) -> float:
        """How much better another choice could be at most, as a fraction of the bound."""
        return max(0.0, self.bound - self.value) / abs(self.bound) if self.bound else 0.0


def value_of(space: PruningSpace, saliencies: Mapping[str, NDArray[np.float64]]) -> AdditiveCost:
    """The value of each network: for each group, the sum of the saliencies of its most salient units.

    Groups without saliencies have no value.
    """
    parts = []
    for gene, width in enumerate(space.widths):
        values = np.zeros(len(width.levels))
        for position, group in enumerate(width.groups):
            if group in saliencies:
                total = np.concatenate([[0.0], np.cumsum(-np.sort(-np.asarray(saliencies[group], dtype=float)))])
                values += total[[level[position] for level in width.levels]]
        parts.append(Part((gene,), values))
    return AdditiveCost(space, tuple(parts))


def choose(cost: AdditiveCost, value: AdditiveCost, budget: float, unit: Unit | None = None) -> Choice:
    """The genome of the highest value whose cost is at most `budget`; the cheapest among equals that were seen.

    Raises `InfeasibleError` with the attainable range, in a `unit`.
    """
    lowest, cheapest = cost.minimum()
    if lowest > budget:
        highest, _ = cost.maximum()
        unit = unit or Unit()
        # Rounded inwards, so that both ends are valid budgets.
        low, high = unit.spelled(lowest, up=True), unit.spelled(highest)
        raise InfeasibleError(
            f"no pruned network meets {unit.spelled(budget)}; attainable: {low} to {high}", (lowest, highest)
        )
    search = _Search(cost, value, budget)
    hull, bound = search.hull(cheapest)
    best = max((search.filled(genome) for genome in hull), key=search.rank)
    return Choice(best, search.value_at(best), search.cost_at(best), max(bound, search.value_at(best)))


@dataclass(frozen=True, eq=False)
class _Search:
    cost: AdditiveCost
    value: AdditiveCost
    budget: float

    def value_at(self, genome: Genomes) -> float:
        return float(self.value.evaluate(genome[np.newaxis])[0])

    def cost_at(self, genome: Genomes) -> float:
        return float(self.cost.evaluate(genome[np.newaxis])[0])

    def rank(self, genome: Genomes) -> tuple[float, float]:
        return self.value_at(genome), -self.cost_at(genome)

    def hull(self, cheapest: Genomes) -> tuple[list[Genomes], float]:
        """Networks on the hull within the budget, the best one first, and the bound of the value.

        The line through the best one within the budget and the best one above it has the next multiplier.
        """
        usable = self._without_unusable()
        _, richest = usable.minimum()
        if self.cost_at(richest) <= self.budget:
            return [richest], self.value_at(richest)
        inside, outside, found = cheapest, richest, [cheapest]
        bound = self.value_at(richest)
        for _ in range(_MOST_STEPS):
            run = self.cost_at(outside) - self.cost_at(inside)
            rise = self.value_at(outside) - self.value_at(inside)
            multiplier = rise / run
            if not multiplier > 0:
                break
            reduced, genome = self._relaxed(multiplier)
            bound = min(bound, multiplier * self.budget - reduced)
            on_line = multiplier * self.cost_at(inside) - self.value_at(inside)
            if reduced >= on_line - _EPSILON * (1 + abs(on_line)):
                break
            if self.cost_at(genome) <= self.budget:
                inside = genome
                found.append(genome)
            else:
                outside = genome
        repaired = self._repaired(outside)
        return [*found[::-1][:3], *([] if repaired is None else [repaired])], bound

    def _negated(self) -> AdditiveCost:
        parts = tuple(Part(part.genes, -part.values) for part in self.value.parts)
        return AdditiveCost(self.value.space, parts, -self.value.constant)

    def _relaxed(self, multiplier: float) -> tuple[float, Genomes]:
        both = AdditiveCost.weighted([self.cost, self._negated()], [multiplier, 1.0])
        return both.minimum()

    def _without_unusable(self) -> AdditiveCost:
        """Minus the value; infinity for a network whose cost is."""
        limits = tuple(Part(part.genes, np.where(np.isinf(part.values), np.inf, 0.0)) for part in self.cost.parts)
        negated = self._negated()
        return AdditiveCost(negated.space, (*negated.parts, *limits), negated.constant)

    # --- filling ------------------------------------------------------------------------------------

    def _repaired(self, genome: Genomes) -> Genomes | None:
        """A network within the budget by the changes that lose the least value for what they save; None without."""
        while (cost := self.cost_at(genome)) > self.budget:
            changed = self._singles(genome)
            saved = cost - self.cost.evaluate(changed)
            lost = self.value_at(genome) - self.value.evaluate(changed)
            helps = np.isfinite(saved) & (saved > 0)
            if not helps.any():
                return None
            worth = np.where(helps, lost / np.where(helps, np.minimum(saved, cost - self.budget), 1.0), np.inf)
            genome = changed[worth.argmin()]
        return genome

    def filled(self, genome: Genomes) -> Genomes:
        """The best of all changes of one gene, again and again, then of two genes."""
        while True:
            better = self._best(genome, self._singles(genome))
            if better is None:
                better = self._best_pair(genome)
            if better is None:
                return genome
            genome = better

    def _best(self, genome: Genomes, changed: Genomes) -> Genomes | None:
        """The best of `changed` within the budget if it is better than `genome`."""
        if not len(changed):
            return None
        values, costs = self.value.evaluate(changed), self.cost.evaluate(changed)
        values[~(costs <= self.budget)] = -np.inf
        value, cost = self.value_at(genome), self.cost_at(genome)
        best = np.lexsort((costs, -values))[0]
        margin = _EPSILON * (1 + abs(value))
        is_better = values[best] > value + margin
        is_cheaper = values[best] >= value and costs[best] < cost - _EPSILON * (1 + abs(cost))
        return changed[best] if is_better or is_cheaper else None

    def _singles(self, genome: Genomes) -> Genomes:
        changes = _changes(genome, self.cost.space.n_choices)
        changed = np.repeat(genome[np.newaxis], len(changes), axis=0)
        changed[np.arange(len(changes)), changes[:, 0]] = changes[:, 1]
        return changed

    def _best_pair(self, genome: Genomes) -> Genomes | None:
        changes = _changes(genome, self.cost.space.n_choices)
        if len(changes) ** 2 // 2 > _MOST_PAIRS:  # then only to the next levels
            changes = changes[np.abs(changes[:, 1] - genome[changes[:, 0]].astype(int)) <= 1]
        first, second = np.triu_indices(len(changes), 1)
        differ = changes[first, 0] != changes[second, 0]
        pairs = [changes[first[differ]], changes[second[differ]]]
        changed = np.repeat(genome[np.newaxis], len(pairs[0]), axis=0)
        for pair in pairs:
            changed[np.arange(len(pair)), pair[:, 0]] = pair[:, 1]
        return self._best(genome, changed)


def _changes(genome: Genomes, n_choices: NDArray[np.int64]) -> NDArray[np.int64]:
    """(gene, other level) of all changes of one gene."""
    found = [(g, level) for g, n in enumerate(n_choices) for level in range(n) if level != genome[g]]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def kept_units(saliency: Sequence[float] | NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The `count` most salient units, in ascending order; the first ones among equals."""
    order = np.argsort(-np.asarray(saliency, dtype=float), kind="stable")
    return np.sort(order[:count]).astype(np.int64)
