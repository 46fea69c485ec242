"""Parts of a search space, and what is known of a network of ReLU layers on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import SearchSpace
from ofa_search.searching.bounds.elimination import FORBIDDEN, Array, Domain, Sums

#: The lowest and the highest inputs of each layer of ReLUs, of M parts (M, H).
Intervals = list[tuple[Array, Array]]

#: Bounds are rounded outwards by this share of the sum of all terms.
ROUNDING = 1e-9


class Linear(NamedTuple):
    """Sums over choices for M parts of the space: values (M, R, C) and constants (M, R)."""

    values: Array
    constant: Array

    @property
    def rounding(self) -> Array:
        """How much the maxima are rounded up (M, R)."""
        rounding: Array = ROUNDING * (np.abs(self.values).sum(axis=2) + np.abs(self.constant))
        return rounding


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


@dataclass(frozen=True, eq=False)
class Columns:
    """Some parts of a `domain`: 0, or a large negative number where a choice is not in a part (M, C)."""

    domain: Domain
    forbidden: Array

    @property
    def parts(self) -> int:
        return len(self.forbidden)

    @staticmethod
    def of(sums: Sums, outer: Domain, domains: Sequence[Domain]) -> Columns:
        forbidden = np.zeros((len(domains), int(sums.starts[-1])))
        for row, domain in zip(forbidden, domains, strict=True):
            for start, choices, allowed in zip(sums.starts, outer, domain, strict=False):
                if len(allowed) < len(choices):
                    row[start + np.setdiff1d(choices, allowed)] = -FORBIDDEN
        return Columns(outer, forbidden)


def line_errors(part: Part, number: int) -> Array:
    """How much the lines of each unit of a layer can add to the bound of the score (H,)."""
    (lows, highs), weights, slopes = part.intervals[number], part.weights[number], part.slopes[number]
    crossing = (lows < 0) & (highs > 0)
    above = highs * -lows / np.where(crossing, highs - lows, 1.0)
    below = np.maximum(slopes * -lows, (1 - slopes) * highs)
    return np.where(crossing, np.abs(weights) * np.where(weights > 0, above, below), 0.0)


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
