"""Searches that start from the results of similar ones, and so need less time."""

from __future__ import annotations

import numpy as np

from ofa_profiler.spaces import Genomes
from ofa_search.searching.engines.base import pull_to_anchor
from ofa_search.searching.engines.moves import crossed
from ofa_search.searching.problem import Problem

#: So many genomes are made from pairs of results.
_CROSSED = 24
#: A result is near if it uses this share of one budget at least.
_NEAR = 0.5


def is_near(problem: Problem, found: Genomes) -> bool:
    """Whether one of the genomes (N, G) keeps all limits, and nearly uses one of them up."""
    feasible = found[problem.feasible(found)]
    if not len(feasible):
        return False
    used = [constraint.cost.evaluate(feasible) / constraint.budget for constraint in problem.constraints]
    return not used or float(np.max(used)) >= _NEAR


def starts(problem: Problem, found: Genomes, rng: np.random.Generator) -> Genomes:
    """Feasible genomes (M, G): those of `found`, and mixtures of the best one and the others.

    Those over a limit take over genes from the best one, until they keep it.
    """
    feasible = problem.feasible(found)
    best = found[feasible][problem.objective.scores(problem.space, found[feasible]).argmax()]
    problem = Problem(problem.space, problem.objective, problem.constraints, best)
    others = found[rng.integers(len(found), size=_CROSSED)]
    mixed = crossed(problem.space, np.repeat(best[np.newaxis], _CROSSED, axis=0), others, rng)
    pulled = pull_to_anchor(problem, np.vstack([found[~feasible], mixed]), rng)
    return np.vstack([best[np.newaxis], found[feasible], pulled])
