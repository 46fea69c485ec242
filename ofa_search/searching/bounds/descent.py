"""Better slopes and prices for the linear bound of a score.

The highest network of a bound gives its derivatives by the slopes of the lower lines, and by the prices of the costs.
Adam (arXiv 1412.6980) follows them. Each step is a bound of its own, and the lowest one is kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa_search.searching.bounds.elimination import Array, Domain, Sums
from ofa_search.searching.bounds.layers import Layers
from ofa_search.searching.bounds.parts import Columns, Intervals, Linear, Lines, Part

#: A bound that is so far above the highest possible score does not come below it by better slopes.
_HOPELESS = 1.0
#: So many steps are worth their time, also after the deadline.
_LEAST_STEPS = 4
#: The first rate for slopes, and for prices relative to the price; and what is left of both after each step.
_SLOPE_RATE, _PRICE_RATE, _DECAY = 0.3, 0.05, 0.9


@dataclass(frozen=True, eq=False)
class Descent:
    """Lowers the bounds of M parts of one domain."""

    layers: Layers
    sums: Sums
    budgets: Array
    domains: Sequence[Domain]
    columns: Columns
    intervals: Intervals
    lines: Sequence[Lines]

    def run(self, slopes: Sequence[Array], prices: Array, steps: int, deadline: float = np.inf) -> list[Part]:
        """The parts after some steps, from slopes (M, H) of each layer and prices (K, M)."""
        slopes = [line.with_slopes(own).low for line, own in zip(self.lines, slopes, strict=True)]
        by_slopes, by_prices = [_Adam(each) for each in slopes], _Adam(prices)
        parts: list[Part] = []
        for step in range(steps + 1):
            drawn = [line.with_slopes(own) for line, own in zip(self.lines, slopes, strict=True)]
            linear, weights = self.layers.score(drawn, len(self.domains))
            values = linear.values[:, 0] + self.columns.forbidden
            genomes = self.sums.best(np.ascontiguousarray(values.T), prices, self.columns.domain)
            ones, left = self.sums.ones(genomes), self.budgets[:, np.newaxis] - self.sums.costs_of(genomes)
            bounds = (
                (ones * values).sum(axis=1) + (linear.constant + linear.rounding)[:, 0] + (prices * left).sum(axis=0)
            )
            found = self._parts(bounds, linear, prices, genomes, weights, slopes)
            parts = [min(each, key=lambda part: part.bound) for each in zip(parts or found, found, strict=True)]
            is_hopeless = (bounds > self.layers.network.high + _HOPELESS).all()
            if step == steps or is_hopeless or (step >= _LEAST_STEPS and time.perf_counter() > deadline):
                break
            rate = _DECAY**step
            gradients = self.layers.by_slope(ones, drawn, weights)
            slopes = [
                np.clip(own - _SLOPE_RATE * rate * adam.step(gradient), 0.0, 1.0)
                for own, adam, gradient in zip(slopes, by_slopes, gradients, strict=True)
            ]
            prices = np.maximum(prices - _PRICE_RATE * rate * prices * by_prices.step(left), 0.0)
        return parts

    def _parts(
        self,
        bounds: Array,
        linear: Linear,
        prices: Array,
        genomes: NDArray[np.int8],
        weights: Sequence[Array],
        slopes: Sequence[Array],
    ) -> list[Part]:
        return [
            Part(
                domain,
                min(float(bounds[m]), self.layers.network.high),
                tuple((lows[m], highs[m]) for lows, highs in self.intervals),
                linear.values[m, 0],
                float(linear.constant[m, 0]),
                prices[:, m],
                genomes[m],
                tuple(each[m, 0] for each in weights),
                tuple(each[m] for each in slopes),
            )
            for m, domain in enumerate(self.domains)
        ]


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
