"""How high a score can be at most: the bound of a problem, by whatever its objective allows."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes
from ofa_profiler.spaces.costs import AdditiveCost, Cost, ScaledCost
from ofa_search.searching.bounds.additive import AdditiveProblem
from ofa_search.searching.bounds.branching import Branching
from ofa_search.searching.bounds.relaxation import Relaxation
from ofa_search.searching.problem import Bound, Problem

Scores = Callable[[Genomes], NDArray[np.float64]]


def why_unbounded(problem: Problem) -> str | None:
    """Why there is no bound; None if there is one."""
    for constraint in problem.constraints:
        if as_sum(constraint.cost) is None:
            return f"the cost of {constraint.name} is no sum over ops"
    objective, space = problem.objective, problem.space
    if objective.additive(space) is None and objective.network(space) is None:
        return f"{objective.name} has no bound"
    return None


def prove(problem: Problem, score: float, seconds: float) -> Bound | None:
    """A bound, given the score of a feasible genome; None if there is none."""
    if why_unbounded(problem) is not None:
        return None

    def scores(genomes: Genomes) -> NDArray[np.float64]:
        feasible = genomes[problem.feasible(genomes)]
        return problem.objective.scores(problem.space, feasible) if len(feasible) else np.empty(0)

    proof = Proof(problem, score, scores)
    proof.run(time.perf_counter() + seconds)
    return proof.bound


class Proof:
    """Looks for genomes better than those of a known score, until there are none, or time is up.

    `scores` gives scores of genomes (N, G), without those that are not feasible or known already.
    """

    def __init__(self, problem: Problem, score: float, scores: Scores) -> None:
        self.bound = Bound(np.inf, is_exact=False)
        self._problem, self._score, self._scores = problem, score, scores
        objective, space = problem.objective, problem.space
        costs = [cost for each in problem.constraints if (cost := as_sum(each.cost)) is not None]
        budgets = [constraint.budget for constraint in problem.constraints]
        additive, network = objective.additive(space), objective.network(space)
        self._additive = None if additive is None else AdditiveProblem.of(additive, costs, budgets)
        self._branching: Branching | None = None
        if additive is None and network is not None:
            self._branching = Branching(Relaxation(network, costs, budgets), self._highest, score)

    def run(self, deadline: float, may_go_on: Callable[[], bool] = lambda: True) -> None:
        """Go on until the deadline, and while it may."""
        if self._additive is not None:
            best = self._additive.best(self._score, deadline)
            if best.genome is not None:
                self._score = max(self._score, self._highest(best.genome[np.newaxis]))
            self.bound = Bound(max(best.bound, self._score), best.is_exact)
        elif self._branching is not None:
            self._branching.run(deadline, may_go_on)
            self.bound = Bound(self._branching.bound, self._branching.is_exact)

    def _highest(self, genomes: Genomes) -> float:
        """The highest score of genomes (N, G), which may have more genes than the problem; minus infinity without."""
        plain = np.unique(genomes[:, : len(self._problem.space.genes)], axis=0)
        return float(self._scores(plain).max(initial=-np.inf))


def as_sum(cost: Cost) -> AdditiveCost | None:
    """The cost as a sum, if it is one."""
    if isinstance(cost, ScaledCost):
        inner = as_sum(cost.cost)
        return None if inner is None else inner.scaled(cost.factor)
    return cost if isinstance(cost, AdditiveCost) else None
