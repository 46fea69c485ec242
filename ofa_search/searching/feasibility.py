"""Checks from the costs alone, before a search, whether an architecture meets all limits.

One limit is compared with `Cost.minimum`, if that is exact. Several limits are combined by Lagrangian relaxation: the
minimum of a weighted sum of costs, each in units of its budget and with weights that sum to 1, is above 1 only if no
genome meets all limits (Fisher, "The Lagrangian relaxation method", 1981). Each step finds a genome, a proof, or better
weights. This requires additive costs, because their weighted sums have exact minima. A search for the smallest excess
decides the cases that relaxation leaves open, and all limits on other costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import InfeasibleError
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_search.searching.engines.evolutionary import Evolutionary
from ofa_search.searching.objectives import Objective
from ofa_search.searching.problem import Constraint, Genome, Problem

_STEPS = 60
#: A bound up to this value may be a rounding error, so it proves nothing.
_PROOF = 1 + 1e-9
#: The excess of an architecture that cannot be used.
_UNUSABLE = 1e9


def find_anchor(space: SearchSpace, constraints: Sequence[Constraint], rng: np.random.Generator) -> Genome:
    """Return a canonical genome (G,) that meets all constraints.

    Raises `InfeasibleError`: with the attainable range if one constraint on an exact cost cannot be met, and with the
    closest architecture found if the constraints are not met together.
    """
    if not constraints:
        return np.zeros(len(space.genes), dtype=np.int8)
    known = []
    for constraint in constraints:
        if constraint.cost.is_exact:
            lowest, genome = constraint.cost.minimum()
            if lowest > constraint.budget:
                raise _unattainable(space, constraint, lowest)
            known.append(genome)
    if len(known) < len(constraints):
        known.append(space.encode([space.smallest])[0])
    for genome in known:
        if _excess(constraints, genome[np.newaxis])[0] <= 0:
            return genome
    found = _relaxed(space, constraints, known)
    return found if found is not None else _searched(space, constraints, known, rng)


def _relaxed(space: SearchSpace, constraints: Sequence[Constraint], known: list[Genome]) -> Genome | None:
    """Return a genome that meets all constraints, or None if relaxation does not decide. Add tried genomes to `known`.

    Raises `InfeasibleError` if the constraints on additive costs exclude each other.
    """
    additive = [(c, c.cost) for c in constraints if isinstance(c.cost, AdditiveCost)]
    if len(additive) < 2:
        return None
    limits, costs = [c for c, _ in additive], [cost for _, cost in additive]
    weights = np.full(len(limits), 1 / len(limits))
    for step in range(1, _STEPS + 1):
        scales = [float(weight) / limit.budget for weight, limit in zip(weights, limits, strict=True)]
        bound, genome = AdditiveCost.weighted(costs, scales).minimum()
        if bound > _PROOF:
            raise InfeasibleError(_together(space, limits, known, "proven by Lagrangian relaxation"))
        if _excess(constraints, genome[np.newaxis])[0] <= 0:
            return genome
        known.append(genome)
        ratios = np.array([c.cost.evaluate(genome[np.newaxis])[0] / c.budget for c in limits])
        weights = weights * np.exp((ratios - ratios.max()) * 4 / np.sqrt(step))
        weights = np.maximum(weights / weights.sum(), 1e-6)
        weights /= weights.sum()
    return None


def _searched(
    space: SearchSpace, constraints: Sequence[Constraint], known: Sequence[Genome], rng: np.random.Generator
) -> Genome:
    """Search for the smallest excess; return a genome that meets all constraints. Raises `InfeasibleError`."""
    start = np.array(known)
    problem = Problem(space, _LeastExcess(constraints), (), start[_excess(constraints, start).argmin()])
    closest = Evolutionary().search(problem, rng, start)
    if closest.score < 0:
        how = f"none found in {closest.evaluations} tries"
        raise InfeasibleError(_together(space, constraints, [*known, closest.genome], how))
    return closest.genome


def _excess(constraints: Sequence[Constraint], genomes: Genomes) -> NDArray[np.float64]:
    """Return the largest excess of each of (N, G) over a budget, as a fraction of the budget; feasible if <= 0."""
    excess: NDArray[np.float64] = np.max([c.cost.evaluate(genomes) / c.budget - 1 for c in constraints], axis=0)
    return excess


class _LeastExcess(Objective):
    """Minimizes the largest excess over several budgets."""

    name = "closeness to the budgets"

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self._constraints = constraints

    def scores(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.float64]:  # noqa: ARG002
        # A genome that meets all budgets has the maximum score, so the search can stop.
        return np.clip(-_excess(self._constraints, genomes), -_UNUSABLE, 0.0)

    def accuracy(self, score: float) -> float | None:  # noqa: ARG002
        return None


# --- messages ----------------------------------------------------------------------------------------


def _unattainable(space: SearchSpace, constraint: Constraint, lowest: float) -> InfeasibleError:
    highest, _ = constraint.cost.maximum()
    # Rounded inwards, so that both ends are valid budgets.
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
    alone = " together, though each can be met alone" if all(c.cost.is_exact for c in constraints) else ""
    return f"no architecture of {space.name} meets {limits}{alone} ({how}); the closest one has {reached}"


def _limit(constraint: Constraint) -> str:
    where = {"ms": f" on {constraint.name}", "bytes": f" as a .{constraint.name} file"}.get(constraint.unit, "")
    return f"{spell(constraint, constraint.budget)}{where}"


#: Unit of a constraint -> suffix, its size in that unit, and steps of what is spelled.
_SPELLINGS = {"ms": ("ms", 1.0, 1e3), "bytes": ("KB", 1e3, 1e3)}


def spell(constraint: Constraint, value: float, *, up: bool = False) -> str:
    """Return a value in the form that `--budget` and similar options accept: `25ms`, `213.4M`, `1980.2KB`."""
    unit, size, digits = _SPELLINGS.get(constraint.unit, ("M", 1e6, 1e2))
    rounded = (ceil if up else floor)(round(value / size * digits, 6)) / digits
    what = "" if constraint.unit in _SPELLINGS else f" {constraint.unit}"
    return f"{rounded:.10g}{unit}{what}"
