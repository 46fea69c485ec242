"""In which order several budgets are searched, and from which results each search starts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ofa_profiler.spaces import Genomes
from ofa_search.searching.problem import Mask
from ofa_search.searching.result import SearchResult


class Solved(NamedTuple):
    """The network of a row of budgets, as a genome (1, G), and what is known of it."""

    genome: Genomes
    result: SearchResult


class Rows(ABC):
    """The rows of budgets of one search."""

    @property
    @abstractmethod
    def count(self) -> int:
        """The number of rows."""

    @property
    @abstractmethod
    def genes(self) -> int:
        """The number of genes of a network."""

    @abstractmethod
    def solve(self, number: int, found: Genomes, *, quick: bool = False, share: float = 1.0) -> Solved:
        """Search for the row of this number, from genomes (N, G) that were found for others.

        A `quick` search relies on them. The bound gets this `share` of its time. Raises `InfeasibleError`.
        """

    @abstractmethod
    def keeps(self, number: int, genomes: Genomes) -> Mask:
        """Which genomes (N, G) keep the limits of the row, (N,)."""

    @abstractmethod
    def settled(self, solved: Solved, best: Solved, bound: float | None) -> SearchResult:
        """The result of a `solved` row, with a network at least as good, and a bound that holds for it."""


class Strategy(ABC):
    """How all rows are solved."""

    @abstractmethod
    def run(self, rows: Rows) -> list[SearchResult]:
        """The results, in the order of the rows."""


@dataclass(frozen=True)
class InOrder(Strategy):
    """One after the other, each from the networks before it.

    With `quick`, quickly where these are near the limits. The bound of each row gets this `share` of its time.
    """

    quick: bool = False
    share: float = 1.0

    def run(self, rows: Rows) -> list[SearchResult]:
        found = np.empty((0, rows.genes), dtype=np.int8)
        results = []
        for number in range(rows.count):
            genome, result = rows.solve(number, found, quick=self.quick, share=self.share)
            found = np.vstack([found, genome])
            results.append(result)
        return results


@dataclass(frozen=True)
class Front(Strategy):
    """Rows from tight to loose: a few are searched with all effort, then those between them, quickly.

    Each result is the best of all networks that keep its budgets, so no result is worse than a tighter one.
    `done` is called with the number of rows that are solved.
    """

    done: Callable[[int], None] = lambda _: None
    #: With all effort: so many rows, and one more for each `per_row` rows.
    least: int = 3
    per_row: int = 16
    #: All bounds together may take so many times the time of one.
    bounds: float = 4.0

    def run(self, rows: Rows) -> list[SearchResult]:
        share = min(1.0, self.bounds / rows.count)
        solved: dict[int, Solved] = {}
        first = self._first(rows.count)
        for number, is_quick in [*((n, False) for n in first), *((n, True) for n in between(first))]:
            genomes = np.vstack([np.empty((0, rows.genes), np.int8), *(each.genome for each in solved.values())])
            solved[number] = rows.solve(number, genomes, quick=is_quick, share=share)
            self.done(len(solved))
        return _settled(rows, solved)

    def _first(self, count: int) -> list[int]:
        effort = min(count, self.least + count // self.per_row - 1)
        return sorted({round(place) for place in np.linspace(0, count - 1, max(effort, 1)).tolist()})


def between(numbers: list[int]) -> Iterator[int]:
    """The numbers between these, the middles first."""
    gaps = list(pairwise(numbers))
    while gaps:
        low, high = gaps.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            yield middle
            gaps += [(low, middle), (middle, high)]


def _settled(rows: Rows, solved: dict[int, Solved]) -> list[SearchResult]:
    """The best network of all for each row; a bound of a looser row holds for tighter ones, too."""
    everything = list(solved.values())
    genomes = np.vstack([each.genome for each in everything])
    results: list[SearchResult] = []
    bound: float | None = None
    for number in reversed(range(rows.count)):
        own = solved[number]
        kept = [each for each, keeps in zip(everything, rows.keeps(number, genomes), strict=True) if keeps]
        best = max([own, *kept], key=lambda each: each.result.score)
        if own.result.bound is not None:
            bound = own.result.bound if bound is None else min(bound, own.result.bound)
        results.append(rows.settled(own, best, bound))
    return results[::-1]
