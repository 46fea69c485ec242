"""Sequential model-based optimisation: a surrogate of the objective says which networks are worth scoring.

The surrogate is a Gaussian process over the choices of the active genes, fitted again after every few evaluations. Its
kernel is a sum of one that counts shared choices, which is a linear model, and of one that falls with the number of
different choices. Candidates come from mutating and crossing the best networks, for a few rounds on the surrogate
alone; those with the highest expected improvement are scored (Jones et al., "Efficient global optimization", 1998).
DeepArchitect (arXiv 1704.08792) does the same with a linear surrogate.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_search.searching.engines.base import Engine, Evaluator
from ofa_search.searching.engines.moves import crossed, mutated
from ofa_search.searching.problem import Problem

Array = NDArray[np.floating[Any]]

#: What is tried at each fit: the reach of the kernel, in shares of all genes, and the share of its linear part.
_REACHES, _LINEAR_SHARES = (0.1, 0.3, 1.0), (0.2, 0.8)
_NOISE = 1e-4
#: A fit waits for this part of the known networks, once that is more than a batch.
_WORTH_A_FIT = 20
#: Equal scores have no scale.
_LEAST = 1e-12
#: They are compared on so many networks.
_COMPARED = 200
#: After so many batches in a row without a new network, there is nothing left that it finds.
_IDLE_BATCHES = 10


@dataclass(frozen=True)
class Smbo(Engine):
    """Scores `evaluations` networks, or as many as allowed if these are limited, `batch` after each fit.

    The surrogate learns from at most `learned` networks, half of them the best. Each fit is followed by `rounds` of
    `candidates`.
    """

    name = "smbo"
    evaluations: int = 1000
    first: int = 64
    batch: int = 16
    learned: int = 600
    candidates: int = 600
    rounds: int = 4
    parents: int = 60
    mutation_rate: float = 0.06

    def _search(self, evaluator: Evaluator, rng: np.random.Generator, known: Genomes, scores: Array) -> None:
        problem = evaluator.problem
        count = self.evaluations if evaluator.left == np.inf else int(evaluator.evaluations + evaluator.left)
        first = max(2, min(self.first, count // 5))
        drawn = problem.space.sample_genomes(rng, 4 * first)
        drawn = evaluator.fresh(evaluator.under_budgets(drawn, rng), first)
        genomes, scores = np.vstack([known, drawn]), np.concatenate([scores, evaluator.score(drawn)])
        batch, idle = max(1, min(self.batch, count // 20)), 0
        while evaluator.evaluations < count and idle < _IDLE_BATCHES:
            proposed = self._proposed(evaluator, genomes, scores, rng)
            chosen = evaluator.fresh(proposed, max(batch, len(genomes) // _WORTH_A_FIT))
            genomes, scores = np.vstack([genomes, chosen]), np.concatenate([scores, evaluator.score(chosen)])
            idle = 0 if len(chosen) else idle + 1

    def _proposed(self, evaluator: Evaluator, genomes: Genomes, scores: Array, rng: np.random.Generator) -> Genomes:
        """Candidates under the budgets, those with the highest expected improvement first."""
        problem = evaluator.problem
        surrogate = _Surrogate.fitted(problem.space, *self._taught(genomes, scores, rng))
        parents = genomes[np.argsort(-scores, kind="stable")[: self.parents]]
        found = evaluator.under_budgets(problem.space.sample_genomes(rng, self.candidates // 4), rng)
        expected = surrogate.improvements(found, float(scores.max()))
        for _ in range(self.rounds):
            children = self._children(problem, parents, rng)
            found = np.vstack([found, children])
            expected = np.concatenate([expected, surrogate.improvements(children, float(scores.max()))])
            found, rows = np.unique(found, axis=0, return_index=True)
            order = np.argsort(-expected[rows], kind="stable")[: self.candidates]
            found, expected = found[order], expected[rows][order]
            parents = found[: self.parents]
        return found

    def _children(self, problem: Problem, parents: Genomes, rng: np.random.Generator) -> Genomes:
        first, second = parents[rng.integers(len(parents), size=(2, self.candidates))]
        half = self.candidates // 2
        both = np.vstack([first[:half], crossed(problem.space, first[half:], second[half:], rng)])
        children = problem.space.canonical(mutated(problem.space, both, self.mutation_rate, rng))
        return children[problem.feasible(children)]

    def _taught(self, genomes: Genomes, scores: Array, rng: np.random.Generator) -> tuple[Genomes, Array]:
        """The networks that the surrogate learns from: the best, and some of the others."""
        if len(genomes) <= self.learned:
            return genomes, scores
        order, half = np.argsort(-scores, kind="stable"), self.learned // 2
        rows = np.concatenate([order[:half], rng.permutation(order[half:])[: self.learned - half]])
        return genomes[rows], scores[rows]


@dataclass(frozen=True, eq=False)
class _Kernel:
    """How alike networks are, from the number of choices that they share, of `genes`."""

    genes: int
    reach: float
    linear_share: float

    def of(self, first: Array, second: Array) -> Array:
        """Choices (N, C) and (M, C) as ones and zeros -> (N, M)."""
        shared = first @ second.T
        apart = (first.sum(axis=1)[:, np.newaxis] + second.sum(axis=1) - 2 * shared) / (2 * self.genes)
        near: Array = np.exp(-apart / self.reach)
        return self.linear_share * shared / self.genes + (1 - self.linear_share) * near


@dataclass(frozen=True, eq=False)
class _Surrogate:
    """A Gaussian process: scores of networks with choices `ones`, in units of their `spread` around their `mean`."""

    space: SearchSpace
    kernel: _Kernel
    ones: Array
    inverse: Array
    weights: Array
    scale: float
    mean: float
    spread: float

    @staticmethod
    def fitted(space: SearchSpace, genomes: Genomes, scores: Array) -> _Surrogate:
        ones, mean, spread = _ones(space, genomes), float(scores.mean()), float(scores.std()) or 1.0
        targets = (scores - mean) / spread
        some = slice(None, None, max(1, len(scores) // _COMPARED))
        kernels = [_Kernel(len(space.genes), reach, share) for reach in _REACHES for share in _LINEAR_SHARES]
        kernel = max(kernels, key=lambda each: _likelihood(each, ones[some], targets[some]))
        inverse = np.linalg.inv(_noisy(kernel, ones))
        weights = inverse @ targets
        scale = max(float(targets @ weights) / len(targets), _LEAST)
        return _Surrogate(space, kernel, ones, inverse, weights, scale, mean, spread)

    def improvements(self, genomes: Genomes, best: float) -> Array:
        """The expected improvements (N,) over the best score."""
        ones = _ones(self.space, genomes)
        across = self.kernel.of(ones, self.ones)
        own = self.kernel.linear_share * ones.sum(axis=1) / len(self.space.genes) + 1 - self.kernel.linear_share
        variances = self.scale * np.maximum(own - ((across @ self.inverse) * across).sum(axis=1), 1e-9)
        deviations = np.sqrt(variances)
        ahead = (across @ self.weights - (best - self.mean) / self.spread) / deviations
        density = np.exp(-(ahead**2) / 2) / np.sqrt(2 * np.pi)
        chance = np.array([(1 + erf(each / np.sqrt(2))) / 2 for each in ahead.tolist()])
        expected: Array = deviations * (ahead * chance + density)
        return expected


def _noisy(kernel: _Kernel, ones: Array) -> Array:
    return kernel.of(ones, ones) + _NOISE * np.eye(len(ones))


def _likelihood(kernel: _Kernel, ones: Array, targets: Array) -> float:
    """The logarithm of the likelihood of the scores, up to a constant, with the best scale of the kernel."""
    lower = np.linalg.cholesky(_noisy(kernel, ones))
    rest = np.linalg.solve(lower, targets)
    return float(-len(targets) / 2 * np.log(max(float(rest @ rest), _LEAST)) - np.log(np.diag(lower)).sum())


def _ones(space: SearchSpace, genomes: Genomes) -> Array:
    """Which choices genomes (N, G) have where they have an effect, (N, C)."""
    sizes = space.n_choices
    starts = np.cumsum([0, *sizes[:-1]])
    ones = np.zeros((len(genomes), int(sizes.sum())))
    np.put_along_axis(ones, genomes + starts, 1.0, axis=1)
    for gene, start, size in zip(space.genes, starts, sizes, strict=True):
        if gene.switch is not None:
            ones[genomes[:, gene.switch] < gene.switch_from, start : start + size] = 0.0
    return ones
