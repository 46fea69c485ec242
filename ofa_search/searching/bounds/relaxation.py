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
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_search.predictor.relu_network import ReluNetwork
from ofa_search.searching.bounds.elimination import FORBIDDEN, Array, Domain, Sums

Intervals = list[tuple[Array, Array]]

#: Bounds are rounded outwards by this share of the sum of all terms.
_ROUNDING = 1e-9
#: The prices of costs that are tried first, in units of the spread of the score per spread of the cost.
_WIDE = np.concatenate([[0.0], np.geomspace(0.02, 10.0, 15)])
#: Prices of being better than the known network, in units of the spread of a unit per spread of the score.
_CUTS = (1.0, 4.0)
#: A bound that is so far above the highest possible score does not come below it by better slopes.
_HOPELESS = 1.0
#: Steps of Adam: the first rate for slopes, and for prices relative to the price; and what is left after each step.
_SLOPE_RATE, _PRICE_RATE, _DECAY = 0.3, 0.05, 0.9


class Linear(NamedTuple):
    """Sums over choices for M parts of the space: values (M, R, C) and constants (M, R)."""

    values: Array
    constant: Array

    @property
    def rounding(self) -> Array:
        """How much the maxima are rounded up (M, R)."""
        rounding: Array = _ROUNDING * (np.abs(self.values).sum(axis=2) + np.abs(self.constant))
        return rounding


class _Cut(NamedTuple):
    """One sum that is at least 0 for networks better than a known one, and its prices (K,) of the costs."""

    linear: Linear
    prices: Array


@dataclass(frozen=True, eq=False)
class Lines:
    """ReLU lies between `low * z` and `up * z + shift`; all (M, H)."""

    low: Array
    up: Array
    shift: Array
    crossing: NDArray[np.bool_]

    @staticmethod
    def of(lows: Array, highs: Array) -> Lines:
        """For inputs in these intervals (M, H)."""
        crossing = (lows < 0) & (highs > 0)
        width = np.where(crossing, highs - lows, 1.0)
        up = np.where(crossing, highs / width, (lows >= 0).astype(np.float64))
        low = np.where(crossing, (highs > -lows).astype(np.float64), up)
        return Lines(low, up, np.where(crossing, -up * lows, 0.0), crossing)

    def with_slopes(self, slopes: Array) -> Lines:
        """With slopes (M, H) of the lower lines, where they are free."""
        return replace(self, low=np.where(self.crossing, np.clip(slopes, 0.0, 1.0), self.up))


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the space: no network in it that keeps the budgets has a score above `bound`.

    If a score is known, this is for networks that are better.
    """

    domain: Domain
    bound: float
    #: The inputs of all layers of ReLUs (H,).
    intervals: tuple[tuple[Array, Array], ...]
    #: The linear bound of the score, (C,) and its constant, its prices (K,), and the network where it is highest.
    values: Array
    constant: float
    prices: Array
    highest: NDArray[np.int8]
    #: The coefficients of the score for each layer of ReLUs, and the slopes of its lower lines (H,).
    weights: tuple[Array, ...]
    slopes: tuple[Array, ...]


class Relaxation:
    """Bounds of a network under budgets."""

    def __init__(self, network: ReluNetwork, costs: Sequence[AdditiveCost], budgets: Sequence[float]) -> None:
        self.network = network
        self.layers = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in network.layers]
        self.sums = Sums.of(network.space, costs)
        self.budgets = np.array(budgets, dtype=np.float64)
        self.everything: Domain = tuple(
            np.array([network.held[gene]]) if gene in network.held else choices
            for gene, choices in enumerate(self.sums.everything)
        )

    def root(self, steps: int, deadline: float = np.inf) -> Part:
        """The whole space. After the deadline, it is done as fast as possible."""
        columns = _Columns(self.everything, np.zeros((1, int(self.sums.starts[-1]))))
        intervals = self._by_intervals(columns)
        lines: list[Lines] = []
        for number, (lows, highs) in enumerate(intervals):
            if number and time.perf_counter() < deadline:
                self._narrow(number, np.flatnonzero((lows < 0) & (highs > 0)), intervals, lines, columns, None)
            lines.append(Lines.of(lows, highs))
        linear, _ = self._score(lines)
        prices = self._first_prices(linear, columns)
        slopes = [line.low for line in lines]
        return self._descended([self.everything], columns, intervals, lines, slopes, prices, steps, deadline)[0]

    def split(self, parent: Part, domains: Sequence[Domain], best: float, steps: int, units: int) -> list[Part]:
        """Parts of a part, for networks better than `best`: in each layer, so many units get new intervals.

        One of the `domains` may be the parent's own.
        """
        columns = _Columns.of(self.sums, parent.domain, domains)
        cut = _Cut(Linear(parent.values[np.newaxis, np.newaxis], np.array([[parent.constant - best]])), parent.prices)
        count = len(domains)
        intervals = [(np.tile(lows, (count, 1)), np.tile(highs, (count, 1))) for lows, highs in parent.intervals]
        lines: list[Lines] = []
        for number, (lows, highs) in enumerate(intervals):
            self._narrow(number, _widest(parent, number, units), intervals, lines, columns, cut)
            lines.append(Lines.of(lows, highs))
        slopes = [np.tile(each, (count, 1)) for each in parent.slopes]
        prices = np.tile(parent.prices[:, np.newaxis], count)
        found = self._descended(domains, columns, intervals, lines, slopes, prices, steps)
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
        most = self._highest(one, part.prices[:, np.newaxis], _Columns(domain, forbidden))[:, 0]
        lost = {each for each, highest in zip(asked, most, strict=True) if highest < best}
        kept = tuple(
            np.array([choice for choice in choices if (gene, choice) not in lost], dtype=np.intp)
            for gene, choices in enumerate(domain)
        )
        return without_inactive(space, kept)

    def rounding(self, part: Part) -> float:
        """How much a score that is computed in float32 can be above that of the exact network, in this part.

        Each sum of n products has a relative error of at most n units of rounding, whatever the order.
        """
        unit = float(np.finfo(np.float32).eps) / 2
        active = len(self.network.space.genes)
        sizes = np.zeros(0)
        errors = np.zeros(0)
        for number, (weight, bias) in enumerate(self.layers):
            absolute = np.abs(weight)
            if number:
                errors = errors @ absolute + (len(weight) + 2) * unit * (sizes @ absolute + np.abs(bias))
            else:
                sums = np.maximum.reduceat(absolute, self.sums.starts[:-1], axis=0).sum(axis=0)
                errors = (active + 2) * unit * (sums + np.abs(bias))
            if number < len(part.intervals):
                sizes = np.maximum(part.intervals[number][1], 0.0)
        return float(errors[0])

    # --- intervals of units ------------------------------------------------------------------------------

    def _by_intervals(self, columns: _Columns) -> Intervals:
        """The exact intervals (1, H) of the first layer's inputs, and from these, wide ones of the others."""
        weight, bias = self.layers[0]
        both = Linear(np.vstack([weight.T, -weight.T])[np.newaxis], np.concatenate([bias, -bias])[np.newaxis])
        most = self._highest(both, np.zeros((len(self.budgets), 2 * len(bias))), columns)
        intervals = [(-most[:, len(bias) :], most[:, : len(bias)])]
        for weight, bias in self.layers[1:-1]:
            lows, highs = (np.maximum(end, 0.0) for end in intervals[-1])
            positive, negative = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
            margin = _ROUNDING * (highs @ np.abs(weight) + np.abs(bias))
            ends = lows @ positive + highs @ negative + bias, highs @ positive + lows @ negative + bias
            intervals.append((ends[0] - margin, ends[1] + margin))
        return intervals

    def _narrow(
        self,
        number: int,
        units: NDArray[np.intp],
        intervals: Intervals,
        lines: Sequence[Lines],
        columns: _Columns,
        cut: _Cut | None,
    ) -> None:
        """Change the intervals of these units of a layer."""
        if not len(units):
            return
        weight, bias = self.layers[number]
        rows, constants = weight.T[units], bias[units]
        linear, _ = self._back(np.vstack([rows, -rows]), np.concatenate([constants, -constants]), lines, columns.parts)
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

    def _highest(self, linear: Linear, prices: Array, columns: _Columns) -> Array:
        """The maxima (M, R) of sums, for prices (K, R) of the costs."""
        parts, rows, choices = linear.values.shape
        values = (linear.values + columns.forbidden[:, np.newaxis]).reshape(parts * rows, choices)
        repeated = np.tile(prices, parts)
        highest = self.sums.highest(np.ascontiguousarray(values.T), repeated, columns.domain)
        highest = highest + self.budgets @ repeated
        return highest.reshape(parts, rows) + linear.constant + linear.rounding

    # --- the score -----------------------------------------------------------------------------------------

    def _back(self, rows: Array, constants: Array, lines: Sequence[Lines], parts: int) -> tuple[Linear, list[Array]]:
        """Upper bounds of `rows @ relu(…) + constants`, rows (R, H), and the coefficients on the way (M, R, H)."""
        values = np.broadcast_to(rows, (parts, *rows.shape))
        constant = np.broadcast_to(constants, (parts, len(constants)))
        weights: list[Array] = []
        for number in reversed(range(len(lines))):
            line, (weight, bias) = lines[number], self.layers[number]
            weights.insert(0, values)
            positive, negative = np.maximum(values, 0), np.minimum(values, 0)
            constant = constant + (positive @ line.shift[:, :, np.newaxis])[:, :, 0]
            values = positive * line.up[:, np.newaxis] + negative * line.low[:, np.newaxis]
            constant = constant + values @ bias
            values = values @ weight.T
        return Linear(values, constant), weights

    def _score(self, lines: Sequence[Lines]) -> tuple[Linear, list[Array]]:
        weight, bias = self.layers[-1]
        return self._back(weight.T, bias, lines, len(lines[0].up) if lines else 1)

    def _first_prices(self, linear: Linear, columns: _Columns) -> Array:
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

    def _descended(
        self,
        domains: Sequence[Domain],
        columns: _Columns,
        intervals: Intervals,
        lines: Sequence[Lines],
        slopes: list[Array],
        prices: Array,
        steps: int,
        deadline: float = np.inf,
    ) -> list[Part]:
        """The parts, after some steps for slopes (M, H) and prices (K, M)."""
        best: list[Part | None] = [None] * len(domains)
        slopes = [line.with_slopes(own).low for line, own in zip(lines, slopes, strict=True)]
        by_slopes = [_Adam(each) for each in slopes]
        by_prices = _Adam(prices)
        for step in range(steps + 1):
            drawn = [line.with_slopes(own) for line, own in zip(lines, slopes, strict=True)]
            linear, weights = self._score(drawn)
            values = linear.values[:, 0] + columns.forbidden
            genomes = self.sums.best(np.ascontiguousarray(values.T), prices, columns.domain)
            ones, left = self.sums.ones(genomes), self.budgets[:, np.newaxis] - self.sums.costs_of(genomes)
            bounds = (
                (ones * values).sum(axis=1) + (linear.constant + linear.rounding)[:, 0] + (prices * left).sum(axis=0)
            )
            if (bounds > self.network.high + _HOPELESS).all():
                steps = step
            bounds = np.minimum(bounds, self.network.high)
            for m, domain in enumerate(domains):
                known = best[m]
                if known is None or bounds[m] < known.bound:
                    best[m] = Part(
                        domain,
                        float(bounds[m]),
                        tuple((lows[m], highs[m]) for lows, highs in intervals),
                        linear.values[m, 0],
                        float(linear.constant[m, 0]),
                        prices[:, m],
                        genomes[m],
                        tuple(each[m, 0] for each in weights),
                        tuple(each[m] for each in slopes),
                    )
            if step == steps or time.perf_counter() > deadline:
                break
            rate = _DECAY**step
            gradients = self._by_slope(ones, drawn, weights)
            slopes = [
                np.clip(own - _SLOPE_RATE * rate * adam.step(gradient), 0.0, 1.0)
                for own, adam, gradient in zip(slopes, by_slopes, gradients, strict=True)
            ]
            prices = np.maximum(prices - _PRICE_RATE * rate * prices * by_prices.step(left), 0.0)
        return [part for part in best if part is not None]

    def _by_slope(self, ones: Array, lines: Sequence[Lines], weights: Sequence[Array]) -> list[Array]:
        """The derivatives of the bounds by the slopes (M, H), at the networks where they are highest."""
        gradients, values = [], ones
        for (weight, bias), line, own in zip(self.layers, lines, weights, strict=False):
            inputs = values @ weight + bias
            coefficients = own[:, 0]
            gradients.append(np.where((coefficients < 0) & line.crossing, coefficients * inputs, 0.0))
            values = np.where(coefficients > 0, line.up * inputs + line.shift, line.low * inputs)
        return gradients


class _Adam:
    """Directions of steps for numbers of any shape (arXiv 1412.6980)."""

    def __init__(self, like: Array) -> None:
        self._mean, self._square, self._count = np.zeros_like(like), np.zeros_like(like), 0

    def step(self, gradient: Array) -> Array:
        self._count += 1
        self._mean = 0.9 * self._mean + 0.1 * gradient
        self._square = 0.99 * self._square + 0.01 * gradient**2
        mean, square = self._mean / (1 - 0.9**self._count), self._square / (1 - 0.99**self._count)
        direction: Array = mean / (np.sqrt(square) + 1e-12)
        return direction


@dataclass(frozen=True, eq=False)
class _Columns:
    """Some parts of a `domain`: 0, or a large negative number where a choice is not in a part (M, C)."""

    domain: Domain
    forbidden: Array

    @property
    def parts(self) -> int:
        return len(self.forbidden)

    @staticmethod
    def of(sums: Sums, outer: Domain, domains: Sequence[Domain]) -> _Columns:
        forbidden = np.zeros((len(domains), int(sums.starts[-1])))
        for row, domain in zip(forbidden, domains, strict=True):
            for start, choices, allowed in zip(sums.starts, outer, domain, strict=False):
                if len(allowed) < len(choices):
                    row[start + np.setdiff1d(choices, allowed)] = -FORBIDDEN
        return _Columns(outer, forbidden)


def without_inactive(space: SearchSpace, domain: Domain) -> Domain | None:
    """Genes that never have an effect keep choice 0; those without a choice are switched off. None if that fails."""
    kept = list(domain)
    for number in reversed(range(len(kept))):  # each gene comes after its switch
        gene = space.genes[number]
        if not len(kept[number]):
            if gene.switch is None:
                return None
            kept[gene.switch] = kept[gene.switch][kept[gene.switch] < gene.switch_from]
            kept[number] = np.zeros(1, dtype=np.intp)
    if not all(map(len, kept)):
        return None
    for number, gene in enumerate(space.genes):
        if gene.switch is not None and kept[gene.switch].max() < gene.switch_from:
            kept[number] = np.zeros(1, dtype=np.intp)
    return tuple(kept)


def _widest(part: Part, number: int, limit: int) -> NDArray[np.intp]:
    """The units of a layer whose intervals matter most for the bound of the score."""
    lows, highs = part.intervals[number]
    crossing = np.flatnonzero((lows < 0) & (highs > 0))
    errors = line_errors(part, number)[crossing]
    return np.sort(crossing[np.argsort(-errors, kind="stable")[:limit]])


def line_errors(part: Part, number: int) -> Array:
    """How much the lines of each unit of a layer can add to the bound of the score (H,)."""
    (lows, highs), weights, slopes = part.intervals[number], part.weights[number], part.slopes[number]
    crossing = (lows < 0) & (highs > 0)
    above = highs * -lows / np.where(crossing, highs - lows, 1.0)
    below = np.maximum(slopes * -lows, (1 - slopes) * highs)
    return np.where(crossing, np.abs(weights) * np.where(weights > 0, above, below), 0.0)


def _spread(sums: Sums, values: Array) -> Array:
    """The sum over genes of the difference between the highest and the lowest value, of (N, C)."""
    starts = sums.starts[:-1]
    lowest, highest = (reduce.reduceat(values, starts, axis=1) for reduce in (np.minimum, np.maximum))
    spread: Array = (highest - lowest).sum(axis=1)
    return spread
