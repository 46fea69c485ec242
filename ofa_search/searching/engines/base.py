"""What an engine is, and what all engines share.

An engine works on genomes (numpy rows), never on architecture objects: whole generations are scored, costed and
compared at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_profiler.spaces import Genomes
from ofa_search.searching.bounds.completion import Completions
from ofa_search.searching.problem import Bound, Genome, Problem, Result


class Spent(Exception):
    """No more genomes may be scored. Engines let it pass; `Engine.search` ends with what was found."""


class Evaluator:
    """Scores genomes of a problem, each distinct one once, and remembers the best that is feasible.

    At most `limit` genomes are scored, if there is a limit.
    """

    def __init__(self, problem: Problem, limit: int | None = None) -> None:
        self.problem = problem
        self._limit: float = np.inf if limit is None else limit
        self.evaluations = 0
        self.best: Genome | None = None
        self.best_score = -np.inf
        #: What an engine has proven.
        self.bound: Bound | None = None
        self._seen: set[bytes] = set()

    @property
    def left(self) -> float:
        """How many genomes may still be scored; infinity without a limit. Engines plan by it."""
        return self._limit - len(self._seen)

    def spend(self, share: float, step: Callable[[], None]) -> None:
        """Run a step of an engine with this share of what is left, in [0, 1]; it ends when that is spent."""
        whole = self._limit
        if whole < np.inf:
            self._limit = len(self._seen) + round(share * self.left)
        try:
            step()
        except Spent:
            pass
        finally:
            self._limit = whole

    def fresh(self, genomes: Genomes, limit: int | None = None) -> Genomes:
        """The first `limit` genomes, canonical, that are feasible and were never given out before.

        All of them must be scored. Raises `Spent` if no more may be.
        """
        return self.fresh_rows(genomes, limit)[0]

    def fresh_rows(self, genomes: Genomes, limit: int | None = None) -> tuple[Genomes, NDArray[np.intp]]:
        """The same, and their rows in `genomes`."""
        if self.left <= 0:
            raise Spent
        most = self.left if limit is None else min(limit, self.left)
        genomes = self.problem.space.canonical(genomes)
        rows: list[int] = []
        feasible = np.flatnonzero(self.problem.feasible(genomes))
        for row, key in zip(feasible.tolist(), _keys(genomes[feasible]), strict=True):
            if len(rows) == most:
                break
            if key not in self._seen:
                self._seen.add(key)
                rows.append(row)
        return genomes[rows], np.array(rows, dtype=np.intp)

    @cached_property
    def completions(self) -> Completions:
        """How partial genomes can be completed under the budgets."""
        return Completions.of(self.problem)

    def under_budgets(self, genomes: Genomes, rng: np.random.Generator) -> Genomes:
        """Genomes (N, G), those over a budget replaced by genomes near them that keep all budgets.

        Random genomes become a sample of what keeps the budgets, with all resolutions and depths that can. Genomes
        pulled to the anchor would have its resolution where budgets are tight.
        """
        genomes = self.problem.space.canonical(genomes)
        over = ~self.problem.feasible(genomes)
        if over.any():
            genomes[over] = pull_to_anchor(self.problem, self.completions.near(genomes[over], rng), rng)
        return genomes

    def score(self, genomes: Genomes) -> NDArray[np.float64]:
        """The scores (N,) of genomes that `fresh` gave."""
        if not len(genomes):
            return np.empty(0)
        scores = self.problem.objective.scores(self.problem.space, genomes)
        self.evaluations += len(genomes)
        first = int(scores.argmax())
        if scores[first] > self.best_score:
            self.best, self.best_score = genomes[first].copy(), float(scores[first])
        return scores


def _keys(genomes: Genomes) -> list[bytes]:
    """Each row of genomes (N, G) as bytes."""
    whole, length = genomes.tobytes(), genomes.shape[1]
    return [whole[start : start + length] for start in range(0, len(whole), length)]


class Engine(ABC):
    """A search algorithm. An instance holds only its settings; the same seed gives the same result.

    `register_engine` makes a class known by its `name`; called without arguments, it has its default settings.
    """

    name: str

    @property
    def starter(self) -> Engine:
        """The engine for smaller problems whose results a search starts from."""
        return self

    @property
    def quick(self) -> Engine:
        """The engine for problems whose starts are good, where most of the time can be saved."""
        return self

    def refusal(self, problem: Problem) -> str | None:  # noqa: ARG002
        """Why this engine cannot search a problem; None if it can."""
        return None

    def search(
        self,
        problem: Problem,
        rng: np.random.Generator,
        start: Genomes | None = None,
        evaluations: int | None = None,
    ) -> Result:
        """The best feasible genome that was found, never worse than the anchor.

        `start` holds feasible genomes (N, G) to begin from; the result is never worse than they are. At most so many
        `evaluations` are made, at least one; if they are fewer than the genomes to begin from, the last of these count.
        Raises `UsageError` if there is a `refusal`.
        """
        if (why := self.refusal(problem)) is not None:
            raise UsageError(f"the engine {self.name} cannot search here: {why}")
        if evaluations is not None and evaluations < 1:
            raise UsageError(f"a search needs at least one evaluation, not {evaluations}")
        evaluator = Evaluator(problem, evaluations)
        known = problem.anchor[np.newaxis] if start is None else np.vstack([problem.anchor[np.newaxis], start])
        known = evaluator.fresh(known if evaluations is None else known[-evaluations:])
        scores = evaluator.score(known)
        evaluator.spend(1.0, lambda: self._search(evaluator, rng, known, scores))
        assert evaluator.best is not None, "the genomes to begin from are feasible"
        return Result(evaluator.best, evaluator.best_score, evaluator.evaluations, evaluator.bound)

    @abstractmethod
    def _search(
        self, evaluator: Evaluator, rng: np.random.Generator, known: Genomes, scores: NDArray[np.float64]
    ) -> None:
        """Score genomes through `evaluator`, which remembers the best. The `known` ones have been scored already.

        `evaluator.fresh` gives the genomes that may be scored. All random numbers come from `rng`.
        """


def pull_to_anchor(problem: Problem, genomes: Genomes, rng: np.random.Generator) -> Genomes:
    """Genomes (N, G) made feasible by taking over more and more genes, in random order, from the anchor.

    The number of genes taken over doubles until the genome is feasible; with all of them it is the anchor.
    """
    genomes = problem.space.canonical(genomes)
    count, n_genes = genomes.shape
    order = rng.permuted(np.broadcast_to(np.arange(n_genes), (count, n_genes)), axis=1)
    waiting = np.flatnonzero(~problem.feasible(genomes))
    taken = 1
    while len(waiting):
        pulled = np.where(order[waiting] < taken, problem.anchor, genomes[waiting])
        genomes[waiting] = problem.space.canonical(pulled)
        waiting = waiting[~problem.feasible(genomes[waiting])] if taken < n_genes else waiting[:0]
        taken *= 2
    return genomes
