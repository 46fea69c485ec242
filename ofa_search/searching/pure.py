"""The best networks of one precision in a space of mixed precision. A mixed search starts from them.

So its result is never worse than theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import InfeasibleError
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost, Part
from ofa_profiler.spaces.mixed import PRECISIONS, MixedSpace
from ofa_search.searching.engines import Engine
from ofa_search.searching.feasibility import find_anchor
from ofa_search.searching.objectives import Objective
from ofa_search.searching.problem import Constraint, Problem

#: Of a limited number of evaluations, each precision gets this share.
_SHARE = 0.25


def best_of_each(
    problem: Problem, engine: Engine, rng: np.random.Generator, evaluations: int | None = None
) -> tuple[Genomes, int]:
    """The best genomes of one precision (N, G), and how many were scored to find them, a part of the `evaluations`.

    A precision that cannot meet the constraints has none. A space of one precision has none at all.
    """
    limit = None if evaluations is None else int(_SHARE * evaluations)
    if limit == 0:
        return np.empty((0, len(problem.space.genes)), dtype=np.int8), 0
    space = problem.space
    found, scored = [np.empty((0, len(space.genes)), dtype=np.int8)], 0
    for number in range(len(PRECISIONS)) if isinstance(space, MixedSpace) else ():
        assert isinstance(space, MixedSpace)
        pure = _Pure(space, number)
        constraints = tuple(pure.constraint(each) for each in problem.constraints)
        try:
            anchor = find_anchor(space.plain, constraints, rng)
        except InfeasibleError:
            continue
        plain = Problem(space.plain, _PureObjective(pure, problem.objective), constraints, anchor)
        best = engine.search(plain, rng, evaluations=limit)
        found.append(pure.mixed(best.genome[np.newaxis]))
        scored += best.evaluations
    return np.vstack(found), scored


@dataclass(frozen=True, eq=False)
class _Pure:
    """The networks of `space` whose slots all have the bits with the index `number`."""

    space: MixedSpace
    number: int

    def mixed(self, genomes: Genomes) -> Genomes:
        """Plain genomes (N, P) -> genomes (N, G)."""
        bits = np.full((len(genomes), len(self.space.slots)), self.number, dtype=np.int8)
        return self.space.canonical(np.hstack([genomes, bits]))

    def constraint(self, constraint: Constraint) -> Constraint:
        """The constraint as one of plain genomes."""
        cost = constraint.cost
        assert isinstance(cost, AdditiveCost), "all costs of mixed networks are sums"
        parts = tuple(map(self._plain_part, cost.parts))
        plain = AdditiveCost(self.space.plain, parts, cost.constant)
        return Constraint(constraint.name, constraint.unit, plain, constraint.budget)

    def _plain_part(self, part: Part) -> Part:
        """A part without the genes of the bits."""
        is_kept = [gene < len(self.space.plain.genes) for gene in part.genes]
        index = tuple(slice(None) if kept else self.number for kept in is_kept)
        genes = tuple(gene for gene, kept in zip(part.genes, is_kept, strict=True) if kept)
        return Part(genes, np.asarray(part.values[index]))


class _PureObjective(Objective):
    """The objective for these networks, as one of plain genomes."""

    def __init__(self, pure: _Pure, objective: Objective) -> None:
        self.name, self.pure, self.objective = objective.name, pure, objective

    def scores(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:  # noqa: ARG002
        return self.objective.scores(self.pure.space, self.pure.mixed(genomes))

    def gradients(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.floating[Any]] | None:
        values = self.objective.gradients(self.pure.space, self.pure.mixed(genomes))
        # The genes of the bits come last.
        return None if values is None else values[:, : int(space.n_choices.sum())]

    def accuracy(self, score: float) -> float | None:
        return self.objective.accuracy(score)
