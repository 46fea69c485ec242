"""Upper bounds of a network of ReLU layers on parts of a search space, by linear relaxation.

Where the input of a ReLU can have both signs, the ReLU lies between two lines (CROWN, arXiv 1811.00866; DeepPoly, POPL
2019). Going back through the layers with the line that the sign of each coefficient asks for, a unit is at most a sum
over the choices of the genes. The maximum of such a sum over a part of the space is exact (`elimination.py`), and
prices on the costs keep it under the budgets. So bounds of the units of the first layer give those of the second, and
so on up to the score. Any slope between 0 and 1 gives a valid lower line: those for the score, and the prices, follow
the gradients of its bound (as in alpha-CROWN, arXiv 2011.13824).

Only networks that are better than a known one matter. For them, the linear bound of the score is above the known
score: this is one more constraint with a price for the bounds of units.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces.costs import AdditiveCost
from ofa_search.predictor.relu_network import ReluNetwork
from ofa_search.searching.bounds.descent import Descent
from ofa_search.searching.bounds.elimination import FORBIDDEN, Array, Domain, Sums
from ofa_search.searching.bounds.layers import Layers
from ofa_search.searching.bounds.parts import (
    ROUNDING,
    Columns,
    Intervals,
    Linear,
    Lines,
    Part,
    line_errors,
    without_inactive,
)

#: The prices of costs that are tried first, in units of the spread of the score per spread of the cost.
_WIDE = np.concatenate([[0.0], np.geomspace(0.02, 10.0, 15)])
#: Prices of being better than the known network, in units of the spread of a unit per spread of the score.
_CUTS = (1.0, 4.0)
#: Memory is limited by so many units at a time in all parts together, at least so many in each.
_ROWS, _FEWEST_UNITS = 96, 24


class _Cut(NamedTuple):
    """One sum that is at least 0 for networks better than a known one, and its prices (K,) of the costs."""

    linear: Linear
    prices: Array


class Relaxation:
    """Bounds of a network under budgets."""

    def __init__(self, network: ReluNetwork, costs: Sequence[AdditiveCost], budgets: Sequence[float]) -> None:
        self.network = network
        self.layers = Layers(network)
        self.sums = Sums.of(network.space, costs)
        self.budgets = np.array(budgets, dtype=np.float64)
        self.everything: Domain = tuple(
            np.array([network.held[gene]]) if gene in network.held else choices
            for gene, choices in enumerate(self.sums.everything)
        )

    def root(self, steps: int, deadline: float = np.inf) -> Part:
        """The whole space. The intervals of units take half of the time; the deadline may be missed by a little."""
        halfway = (time.perf_counter() + deadline) / 2
        columns = Columns(self.everything, np.zeros((1, int(self.sums.starts[-1]))))
        intervals = self._by_intervals(columns)
        lines: list[Lines] = []
        for number, (lows, highs) in enumerate(intervals):
            if number and time.perf_counter() < halfway:
                self._narrow(number, np.flatnonzero((lows < 0) & (highs > 0)), intervals, lines, columns, None)
            lines.append(Lines.of(lows, highs))
        linear, _ = self.layers.score(lines, 1)
        prices = self._first_prices(linear, columns)
        slopes = [line.low for line in lines]
        descent = Descent(self.layers, self.sums, self.budgets, [self.everything], columns, intervals, lines)
        return descent.run(slopes, prices, steps, deadline)[0]

    def split(self, parent: Part, domains: Sequence[Domain], best: float, steps: int, units: int) -> list[Part]:
        """Parts of a part, for networks better than `best`: in each layer, so many units get new intervals.

        One of the `domains` may be the parent's own.
        """
        columns = Columns.of(self.sums, parent.domain, domains)
        cut = _Cut(Linear(parent.values[np.newaxis, np.newaxis], np.array([[parent.constant - best]])), parent.prices)
        count = len(domains)
        intervals = [(np.tile(lows, (count, 1)), np.tile(highs, (count, 1))) for lows, highs in parent.intervals]
        lines: list[Lines] = []
        for number, (lows, highs) in enumerate(intervals):
            self._narrow(number, widest(parent, number, units), intervals, lines, columns, cut)
            lines.append(Lines.of(lows, highs))
        slopes = [np.tile(each, (count, 1)) for each in parent.slopes]
        prices = np.tile(parent.prices[:, np.newaxis], count)
        descent = Descent(self.layers, self.sums, self.budgets, domains, columns, intervals, lines)
        found = descent.run(slopes, prices, steps)
        return [replace(part, bound=min(part.bound, parent.bound)) for part in found]

    def without_losers(self, part: Part, best: float) -> Domain | None:
        """The part's domain without the choices that no network better than `best` can have; None if none remains."""
        space, domain = self.sums.space, part.domain
        asked = [(gene, choice) for gene, choices in enumerate(domain) if len(choices) > 1 for choice in choices]
        if not asked:
            return domain
        forbidden = np.zeros((len(asked), len(part.values)))
        for row, (gene, choice) in zip(forbidden, asked, strict=True):
            start = self.sums.starts[gene]
            row[start : self.sums.starts[gene + 1]] = -FORBIDDEN
            row[start + choice] = 0.0
            switch = space.genes[gene].switch
            if switch is not None:  # only where the gene has an effect
                row[self.sums.starts[switch] : self.sums.starts[switch] + space.genes[gene].switch_from] = -FORBIDDEN
        one = Linear(np.tile(part.values, (len(asked), 1, 1)), np.full((len(asked), 1), part.constant))
        most = self._highest(one, part.prices[:, np.newaxis], Columns(domain, forbidden))[:, 0]
        lost = {each for each, highest in zip(asked, most, strict=True) if highest < best}
        kept = tuple(
            np.array([choice for choice in choices if (gene, choice) not in lost], dtype=np.intp)
            for gene, choices in enumerate(domain)
        )
        return without_inactive(space, kept)

    def rounding(self, part: Part) -> float:
        """How much a score that is computed in float32 can be above that of the exact network, in this part."""
        return self.layers.rounding(part, self.sums.starts)

    # --- intervals of units ------------------------------------------------------------------------------

    def _by_intervals(self, columns: Columns) -> Intervals:
        """The exact intervals (1, H) of the first layer's inputs, and from these, wide ones of the others."""
        if len(self.layers.layers) == 1:
            return []
        weight, bias = self.layers.layers[0]
        both = Linear(np.vstack([weight.T, -weight.T])[np.newaxis], np.concatenate([bias, -bias])[np.newaxis])
        most = self._highest(both, np.zeros((len(self.budgets), 2 * len(bias))), columns)
        intervals = [(-most[:, len(bias) :], most[:, : len(bias)])]
        for weight, bias in self.layers.layers[1:-1]:
            lows, highs = (np.maximum(end, 0.0) for end in intervals[-1])
            positive, negative = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
            margin = ROUNDING * (highs @ np.abs(weight) + np.abs(bias))
            ends = lows @ positive + highs @ negative + bias, highs @ positive + lows @ negative + bias
            intervals.append((ends[0] - margin, ends[1] + margin))
        return intervals

    def _narrow(
        self,
        number: int,
        units: NDArray[np.intp],
        intervals: Intervals,
        lines: Sequence[Lines],
        columns: Columns,
        cut: _Cut | None,
    ) -> None:
        """Change the intervals of these units of a layer, some at a time."""
        together = max(_FEWEST_UNITS, _ROWS // columns.parts)
        for start in range(0, len(units), together):
            self._narrow_some(number, units[start : start + together], intervals, lines, columns, cut)

    def _narrow_some(
        self,
        number: int,
        units: NDArray[np.intp],
        intervals: Intervals,
        lines: Sequence[Lines],
        columns: Columns,
        cut: _Cut | None,
    ) -> None:
        weight, bias = self.layers.layers[number]
        rows, constants = weight.T[units], bias[units]
        linear, _ = self.layers.back(
            np.vstack([rows, -rows]), np.concatenate([constants, -constants]), lines, columns.parts
        )
        most = self._highest(linear, np.zeros((len(self.budgets), 2 * len(units))), columns)
        if cut is not None:
            size = _spread(self.sums, linear.values.max(axis=0)) / (_spread(self.sums, cut.linear.values[0]) + 1e-12)
            for factor in _CUTS:
                price = factor * size
                priced = Linear(
                    linear.values + price[:, np.newaxis] * cut.linear.values,
                    linear.constant + price * cut.linear.constant,
                )
                most = np.minimum(most, self._highest(priced, cut.prices[:, np.newaxis] * price, columns))
        lows, highs = intervals[number]
        highs[:, units] = np.minimum(highs[:, units], most[:, : len(units)])
        lows[:, units] = np.maximum(lows[:, units], -most[:, len(units) :])

    def _highest(self, linear: Linear, prices: Array, columns: Columns) -> Array:
        """The maxima (M, R) of sums, for prices (K, R) of the costs."""
        parts, rows, choices = linear.values.shape
        values = (linear.values + columns.forbidden[:, np.newaxis]).reshape(parts * rows, choices)
        repeated = np.tile(prices, parts)
        highest = self.sums.highest(np.ascontiguousarray(values.T), repeated, columns.domain)
        highest = highest + self.budgets @ repeated
        return highest.reshape(parts, rows) + linear.constant + linear.rounding

    # --- the score -----------------------------------------------------------------------------------------

    def _first_prices(self, linear: Linear, columns: Columns) -> Array:
        """Good prices (K, 1) of the costs for the score."""
        prices = np.zeros((len(self.budgets), 1))
        size = float(_spread(self.sums, linear.values[0])[0])
        repeated = Linear(np.repeat(linear.values, len(_WIDE), axis=1), np.repeat(linear.constant, len(_WIDE), axis=1))
        for number, cost in enumerate(self.sums.costs):
            spread = max(cost.maximum()[0] - cost.minimum()[0], 1e-12)
            tried = np.repeat(prices, len(_WIDE), axis=1)
            tried[number] = _WIDE * size / spread
            prices[number] = tried[number, self._highest(repeated, tried, columns)[0].argmin()]
        return prices


def widest(part: Part, number: int, limit: int) -> NDArray[np.intp]:
    """The units of a layer whose intervals matter most for the bound of the score."""
    lows, highs = part.intervals[number]
    crossing = np.flatnonzero((lows < 0) & (highs > 0))
    errors = line_errors(part, number)[crossing]
    return np.sort(crossing[np.argsort(-errors, kind="stable")[:limit]])


def _spread(sums: Sums, values: Array) -> Array:
    """The sum over genes of the difference between the highest and the lowest value, of (N, C)."""
    starts = sums.starts[:-1]
    lowest, highest = (reduce.reduceat(values, starts, axis=1) for reduce in (np.minimum, np.maximum))
    spread: Array = (highest - lowest).sum(axis=1)
    return spread
