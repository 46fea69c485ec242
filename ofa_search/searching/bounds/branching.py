"""Branch and bound over the genes of a space, the part with the highest bound first.

Each step divides a part by all choices of one gene: that whose choices move those units most whose lines add most to
the bound. Parts with few networks are scored.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count, product
from math import inf, prod

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_search.searching.bounds.elimination import Array, Domain
from ofa_search.searching.bounds.parts import Part, line_errors, without_inactive
from ofa_search.searching.bounds.relaxation import Relaxation

#: The highest score of genomes (N, G) of the network's space that keep the budgets, or minus infinity.
Highest = Callable[[Genomes], float]

#: Parts with at most so many networks are scored.
MOST_SCORED = 600
#: Steps for slopes and prices of the whole space, and of a part.
_FIRST_STEPS, _STEPS = 25, 5
#: The whole space is bounded at most so many times again, without choices that are excluded.
_FIRST_ROUNDS = 4
#: In each layer, so many units get new intervals in a part.
_UNITS = 24


class Pace:
    """Says whether another step ends before a deadline, if it takes as long as the last one (at first: `seconds`)."""

    def __init__(self, deadline: float, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._deadline, self._began = deadline, -inf

    def allows_another(self) -> bool:
        """To be asked before each step."""
        now = time.perf_counter()
        if self._began > -inf:
            self.seconds = now - self._began
        self._began = now
        return now + self.seconds < self._deadline


@dataclass
class Branching:
    """A search for the highest score, with the bound that is known so far. `best` is the best known score."""

    relaxation: Relaxation
    highest: Highest
    best: float
    #: How much scores may be above those of the exact network.
    rounding: float = 0.0
    parts: int = 0
    _open: list[tuple[float, int, Part]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)
    #: How long a step may take.
    _step_seconds: float = 0.0

    @property
    def bound(self) -> float:
        """No network under the budgets has a higher score."""
        if not self._open:
            return self.best
        return max(self.best, min(self.rounding - self._open[0][0], self.relaxation.network.high))

    @property
    def is_exact(self) -> bool:
        """Whether the best known score is the highest one."""
        return not self._open

    def run(self, deadline: float, may_go_on: Callable[[], bool] = lambda: True) -> None:
        """Go on until the best score is proven, or the deadline, and while it may."""
        if not self.parts:
            self.parts = 1
            if _size(self.relaxation.everything) <= MOST_SCORED:
                self._leaf(self.relaxation.everything)
            else:
                self._first(deadline)
        pace = Pace(deadline, self._step_seconds)
        while self._open and pace.allows_another() and may_go_on():
            _, _, part = heapq.heappop(self._open)
            if _size(part.domain) <= MOST_SCORED:
                self._leaf(part.domain)
                self._prune()
            else:
                self._divide(part)

    def _first(self, deadline: float) -> None:
        """The whole space: bounds exclude choices, which makes the bounds tighter, and so on."""
        began = time.perf_counter()
        part = self.relaxation.root(_FIRST_STEPS, deadline)
        self.rounding = self.relaxation.rounding(part)
        pace = Pace(deadline, (time.perf_counter() - began) / 2)
        for _ in range(_FIRST_ROUNDS):
            if not pace.allows_another():
                break
            before = _size(part.domain), part.bound
            domain = self.relaxation.without_losers(part, self.best - self.rounding)
            if domain is None:
                return
            (part,) = self.relaxation.split(part, [domain], self.best - self.rounding, 2 * _STEPS, 10 * _UNITS)
            if _size(domain) == before[0] and part.bound > before[1] - 1e-5:
                break
        self._step_seconds = pace.seconds
        self._push(part)

    def _divide(self, part: Part) -> None:
        domains = _divided(self.relaxation.network.space, part.domain, self._gene(part))
        children = self.relaxation.split(part, domains, self.best - self.rounding, _STEPS, _UNITS)
        self.parts += len(children)
        for child in children:
            if child.bound + self.rounding > self.best:
                domain = self.relaxation.without_losers(child, self.best - self.rounding)
                if domain is not None:
                    self._push(replace(child, domain=domain))

    def _push(self, part: Part) -> None:
        if part.bound + self.rounding > self.best:
            heapq.heappush(self._open, (-part.bound, next(self._numbers), part))

    def _prune(self) -> None:
        if self._open and -self._open[0][0] + self.rounding <= self.best:
            self._open.clear()

    def _leaf(self, domain: Domain) -> None:
        grid = np.array(list(product(*domain)), dtype=np.int8)  # numpy has no arrays with an axis for each gene
        genomes = np.unique(self.relaxation.network.space.canonical(grid), axis=0)
        self.best = max(self.best, self.highest(genomes))

    def _gene(self, part: Part) -> int:
        """The gene that divides a part."""
        relaxation, space = self.relaxation, self.relaxation.network.space
        errors = np.ones(1)
        if part.intervals:
            lows, highs = part.intervals[0]
            errors = line_errors(part, 0) / np.maximum(highs - lows, 1e-12)
        moves = np.array(
            [
                _moves(relaxation.layers.layers[0][0], relaxation.sums.starts, space, part.domain, gene) @ errors
                if len(part.domain[gene]) > 1
                else -1.0
                for gene in range(len(space.genes))
            ]
        )
        return int(moves.argmax())


def _moves(weight: Array, starts: NDArray[np.intp], space: SearchSpace, domain: Domain, gene: int) -> Array:
    """How much the choices of a gene move the inputs of the first layer (H,)."""
    own = weight[starts[gene] + domain[gene]]
    moves: Array = own.max(axis=0) - own.min(axis=0)
    for other, each in enumerate(space.genes):
        if each.switch == gene and (domain[gene] < each.switch_from).any() and (domain[gene] >= each.switch_from).any():
            moves = moves + np.abs(weight[starts[other] + domain[other]]).max(axis=0)
    return moves


def _divided(space: SearchSpace, domain: Domain, gene: int) -> list[Domain]:
    """The domain for each choice of a gene."""
    parts = [(*domain[:gene], np.array([choice]), *domain[gene + 1 :]) for choice in domain[gene]]
    return [part for part in (without_inactive(space, part) for part in parts) if part is not None]


def _size(domain: Domain) -> int:
    return prod(len(choices) for choices in domain)
