"""Can the limits be met at all? Answered from the tables, before any search.

One limit is a matter of `AdditiveCost.minimum`, which is exact. Several limits together are weighed
against each other by Lagrangian relaxation: the minimum of a weighted sum of costs, each in units of
its budget and the weights adding up to 1, is above 1 only if no genome meets all of them (Fisher, "The
Lagrangian relaxation method", 1981). So every step finds a genome, or a proof, or better weights; in
the gap that relaxation leaves, a search for the smallest excess has the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import InfeasibleError
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost, Part
from ofa_search.searching.engines.base import Constraint, Genome, Problem
from ofa_search.searching.engines.evolutionary import Evolutionary
from ofa_search.searching.objectives import Objective

_STEPS = 60
#: A bound this little above 1 may be rounding, and is no proof.
_PROOF = 1 + 1e-9


def find_anchor(space: SearchSpace, constraints: Sequence[Constraint], rng: np.random.Generator) -> Genome:
    """A canonical genome (G,) that meets all constraints.

    Raises `InfeasibleError`: with the attainable range when a constraint cannot be met alone, and with
    what is known when they are not met together.
    """
    if not constraints:
        return np.zeros(len(space.genes), dtype=np.int8)
    fastest = []
    for constraint in constraints:
        lowest, genome = constraint.cost.minimum()
        if lowest > constraint.budget:
            raise _unattainable(space, constraint, lowest)
        fastest.append(genome)
    for genome in fastest:
        if _excess(constraints, genome[np.newaxis])[0] <= 0:
            return genome
    return _jointly(space, constraints, fastest, rng)


def _jointly(
    space: SearchSpace, constraints: Sequence[Constraint], known: Sequence[Genome], rng: np.random.Generator
) -> Genome:
    weights = np.full(len(constraints), 1 / len(constraints))
    tried = list(known)
    for step in range(1, _STEPS + 1):
        bound, genome = _weighted(space, constraints, weights).minimum()
        if bound > _PROOF:
            raise InfeasibleError(_together(space, constraints, tried, "proven by Lagrangian relaxation"))
        ratios = np.array([c.cost.evaluate(genome[np.newaxis])[0] / c.budget for c in constraints])
        if _excess(constraints, genome[np.newaxis])[0] <= 0:
            return genome
        tried.append(genome)
        weights = weights * np.exp((ratios - ratios.max()) * 4 / np.sqrt(step))
        weights = np.maximum(weights / weights.sum(), 1e-6)
        weights /= weights.sum()
    start = np.array(tried)
    problem = Problem(space, _LeastExcess(constraints), (), start[_excess(constraints, start).argmin()])
    closest = Evolutionary().search(problem, rng, start)
    if closest.score < 0:
        tried.append(closest.genome)
        raise InfeasibleError(_together(space, constraints, tried, f"none found in {closest.evaluations} tries"))
    return closest.genome


def _excess(constraints: Sequence[Constraint], genomes: Genomes) -> NDArray[np.float64]:
    """How far (N, G) are over the budget that they miss by most, as a fraction of it; 0 and less: feasible."""
    excess: NDArray[np.float64] = np.max([c.cost.evaluate(genomes) / c.budget - 1 for c in constraints], axis=0)
    return excess


def _weighted(space: SearchSpace, constraints: Sequence[Constraint], weights: NDArray[np.float64]) -> AdditiveCost:
    """The sum of cost / budget, weighted. All weights are above zero."""
    scaled = [c.cost.affine(float(w) / c.budget, 0.0) for c, w in zip(constraints, weights, strict=True)]
    parts: tuple[Part, ...] = tuple(part for cost in scaled for part in cost.parts)
    return AdditiveCost(space, parts, sum(cost.constant for cost in scaled))


class _LeastExcess(Objective):
    """Being as little as possible over the worst of several budgets."""

    name = "closeness to the budgets"

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self._constraints = constraints

    def scores(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:  # noqa: ARG002
        # Capped: what meets all budgets is as good as anything, and the search may stop.
        return np.minimum(0.0, -_excess(self._constraints, genomes))

    def accuracy(self, score: float) -> float | None:  # noqa: ARG002
        return None


# --- what it says ------------------------------------------------------------------------------------


def _unattainable(space: SearchSpace, constraint: Constraint, lowest: float) -> InfeasibleError:
    highest, _ = constraint.cost.maximum()
    # Rounded inwards, so that both ends can be asked for.
    low, high = spell(constraint, lowest, up=True), spell(constraint, highest)
    return InfeasibleError(
        f"no architecture of {space.name} meets {_limit(constraint)}; attainable: {low} to {high}",
        (lowest, highest),
    )


def _together(space: SearchSpace, constraints: Sequence[Constraint], tried: Sequence[Genome], how: str) -> str:
    genomes = np.array(tried)
    closest = genomes[_excess(constraints, genomes).argmin()][np.newaxis]
    reached = ", ".join(spell(c, float(c.cost.evaluate(closest)[0]), up=True) for c in constraints)
    limits = " and ".join(_limit(c) for c in constraints)
    return (
        f"no architecture of {space.name} meets {limits} together, though each can be met alone "
        f"({how}); the closest one has {reached}"
    )


def _limit(constraint: Constraint) -> str:
    where = f" on {constraint.name}" if constraint.unit == "ms" else ""
    return f"{spell(constraint, constraint.budget)}{where}"


def spell(constraint: Constraint, value: float, *, up: bool = False) -> str:
    """A value of what is limited, in a form that `--budget` and its like take: `25ms`, `213.4M`."""
    unit, size = ("ms", 1.0) if constraint.unit == "ms" else ("M", 1e6)
    digits = 1e3 if constraint.unit == "ms" else 1e2
    rounded = (ceil if up else floor)(round(value / size * digits, 6)) / digits
    what = "" if constraint.unit == "ms" else f" {constraint.unit}"
    return f"{rounded:.10g}{unit}{what}"
