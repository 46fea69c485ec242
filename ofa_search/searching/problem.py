"""What a search problem is, and what a search gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost, Cost
from ofa_profiler.spaces.narrowing import narrowed_cost
from ofa_search.searching.objectives import Objective

Genome = NDArray[np.int8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Constraint:
    """`cost` may be at most `budget`.

    `unit` is `ms` with the `name` of the table, `bytes` with that of a kind of file, else what is counted.
    """

    name: str
    unit: str
    cost: Cost
    budget: float

    def met(self, genomes: Genomes) -> Mask:
        """Genomes (N, G) -> (N,)."""
        met: Mask = self.cost.evaluate(genomes) <= self.budget
        return met


@dataclass(frozen=True, eq=False)
class SizeLimit:
    """A model file of the `kind`, such as `tflite`, may have at most `limit` bytes.

    `cost` gives the bytes of the networks of a space (`ofa_profiler.export.file_size`); they do not depend on its
    resolutions.
    """

    kind: str
    cost: AdditiveCost
    limit: float

    def constraint(self, space: SearchSpace) -> Constraint:
        """What a network of `space` must keep, which may have other resolutions than the one of `cost`."""
        return Constraint(self.kind, "bytes", narrowed_cost(self.cost, space), self.limit)


@dataclass(frozen=True, eq=False)
class Problem:
    """Find the genome of `space` with the highest score that meets all constraints.

    `anchor` is a canonical genome that meets them (`feasibility.py` finds it). Engines return it when they find nothing
    better, and pull other genomes towards it, so that every engine always has an answer.
    """

    space: SearchSpace
    objective: Objective
    constraints: tuple[Constraint, ...]
    anchor: Genome

    def feasible(self, genomes: Genomes) -> Mask:
        """Which genomes (N, G) meet all constraints, (N,)."""
        feasible = np.ones(len(genomes), dtype=np.bool_)
        for constraint in self.constraints:
            feasible &= constraint.met(genomes)
        return feasible


@dataclass(frozen=True)
class Bound:
    """No genome that meets all constraints has a score above `score`; `is_exact`: one is known that has it."""

    score: float
    is_exact: bool


@dataclass(frozen=True, eq=False)
class Result:
    """The best genome found, its score, how many distinct genomes were scored to find it, and perhaps a bound."""

    genome: Genome
    score: float
    evaluations: int
    bound: Bound | None = None
