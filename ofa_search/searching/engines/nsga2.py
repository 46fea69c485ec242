"""NSGA-II: networks that no other one beats in score and in all costs (Deb et al., 2002).

Each generation keeps the best of parents and children: by the front that they belong to, then by how far their
neighbours on it are. So the population spreads over all costs under the budgets. As an engine it gives the best score;
`front` gives the whole front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes
from ofa_search.searching.engines.base import Engine, Evaluator, pull_to_anchor
from ofa_search.searching.engines.moves import crossed, mutated
from ofa_search.searching.problem import Problem

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


class Front(NamedTuple):
    """Networks (N, G) by falling score (N,), with the cost of each constraint (N, K). None beats another in all."""

    genomes: Genomes
    scores: Array
    costs: Array


@dataclass(frozen=True)
class Nsga2(Engine):
    """Makes so many `generations`, or as many as evaluations allow if these are limited."""

    name = "nsga2"
    population: int = 100
    generations: int = 200
    mutation_rate: float = 0.06
    crossing_share: float = 0.9

    def _search(self, evaluator: Evaluator, rng: np.random.Generator, known: Genomes, scores: Array) -> None:
        self._evolve(evaluator, rng, known, scores)

    def front(
        self,
        problem: Problem,
        rng: np.random.Generator,
        start: Genomes | None = None,
        evaluations: int | None = None,
    ) -> Front:
        """The best networks found for all costs up to the budgets: the front of everything that was scored."""
        recorder = _Recorder(self)
        recorder.search(problem, rng, start, evaluations)
        genomes, scores = np.vstack(recorder.genomes), np.concatenate(recorder.scores)
        costs = _costs(problem, genomes)
        order = np.lexsort((*costs.T[::-1], -scores))
        kept = order[first_front(np.column_stack([-scores, costs])[order])]
        return Front(genomes[kept], scores[kept], costs[kept])

    def _evolve(self, evaluator: Evaluator, rng: np.random.Generator, genomes: Genomes, scores: Array) -> None:
        problem = evaluator.problem
        size = int(max(8, min(self.population, evaluator.left / 10)))
        drawn = problem.space.sample_genomes(rng, 4 * size)
        drawn = evaluator.fresh(evaluator.under_budgets(drawn, rng), max(1, size - len(genomes)))
        genomes, scores = np.vstack([genomes, drawn]), np.concatenate([scores, evaluator.score(drawn)])
        generations = self.generations if evaluator.left == np.inf else int(4 * evaluator.left / size) + 1
        for _ in range(generations):
            kept, ranks = survivors(np.column_stack([-scores, _costs(problem, genomes)]), size)
            genomes, scores = genomes[kept], scores[kept]
            children = evaluator.fresh(self._children(problem, genomes, ranks, rng), size)
            genomes, scores = np.vstack([genomes, children]), np.concatenate([scores, evaluator.score(children)])

    def _children(self, problem: Problem, genomes: Genomes, ranks: Rows, rng: np.random.Generator) -> Genomes:
        """Children of winners of tournaments; there may be more than needed, since some are known already."""
        pairs = rng.integers(len(genomes), size=(2, 2, 2 * self.population))
        first, second = np.where(ranks[pairs[0]] <= ranks[pairs[1]], *pairs)
        is_crossed = rng.random((len(first), 1)) < self.crossing_share
        children = np.where(is_crossed, crossed(problem.space, genomes[first], genomes[second], rng), genomes[first])
        return pull_to_anchor(problem, mutated(problem.space, children, self.mutation_rate, rng), rng)


class _Recorder(Engine):
    """Another engine, of which everything is kept that it scores."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.engine = engine.name, engine
        self.genomes: list[Genomes] = []
        self.scores: list[Array] = []

    def _search(self, evaluator: Evaluator, rng: np.random.Generator, known: Genomes, scores: Array) -> None:
        self.genomes, self.scores = [known], [scores]
        score = evaluator.score

        def recorded(genomes: Genomes) -> Array:
            found = score(genomes)
            self.genomes.append(genomes)
            self.scores.append(found)
            return found

        evaluator.score = recorded  # type: ignore[method-assign]
        self.engine._search(evaluator, rng, known, scores)


def _costs(problem: Problem, genomes: Genomes) -> Array:
    """The cost of each constraint, (N, K)."""
    return np.array([each.cost.evaluate(genomes) for each in problem.constraints]).reshape(-1, len(genomes)).T


def _beats(values: Array) -> NDArray[np.bool_]:
    """Which rows of values (N, K), the lower the better, beat which, (N, N): never worse, and better in one."""
    first, second = values[:, np.newaxis], values[np.newaxis]
    return np.asarray((first <= second).all(axis=2) & (first < second).any(axis=2))


def first_front(values: Array) -> Rows:
    """The rows of values (N, K), the lower the better, that no other row beats; of equal ones, the first."""
    kept: list[int] = []
    # In this order, no row is beaten by a later one.
    for row in np.lexsort(values.T[::-1]).tolist():
        if not (values[kept] <= values[row]).all(axis=1).any():
            kept.append(row)
    return np.array(sorted(kept), dtype=np.intp)


def survivors(values: Array, count: int) -> tuple[Rows, Rows]:
    """The best rows of values (N, K), the lower the better, and the rank of each: by front, then by crowding."""
    beats = _beats(values)
    beaten = beats.sum(axis=0)
    left = np.ones(len(values), dtype=np.bool_)
    order: list[int] = []
    while len(order) < min(count, len(values)):
        front = np.flatnonzero(left & (beaten == 0))
        left[front] = False
        beaten = beaten - beats[front].sum(axis=0)
        order += front[np.argsort(-_distances(values[front]), kind="stable")].tolist()
    kept = np.array(order[:count], dtype=np.intp)
    return kept, np.arange(len(kept))


def _distances(values: Array) -> Array:
    """How far the neighbours of each row of a front (N, K) are, over all columns; infinite at the ends."""
    distances = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        distances[order[[0, -1]]] = np.inf
        distances[order[1:-1]] += (ordered[2:] - ordered[:-2]) / (ordered[-1] - ordered[0] or 1.0)
    return distances
