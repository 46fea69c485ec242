"""Monte-Carlo tree search, as in DeepArchitect (arXiv 1704.08792), without branches that cannot keep the budgets.

A path through the tree chooses gene after gene. At each node it follows the child with the highest upper confidence
bound (UCT; Kocsis and Szepesvari, 2006) down to one that was never visited, and completes that network at random. Exact
bounds of the costs of all completions (`bounds/completion.py`) leave out choices that no network under the budgets has,
so (nearly) every path gives a network that may be scored; the original has to score networks to learn that.

Random completions of forty genes say little about the first ones. So they keep most choices of the best network that is
known at the node.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, sqrt

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes
from ofa_search.searching.engines.base import Engine, Evaluator, pull_to_anchor
from ofa_search.searching.problem import Genome

Scores = NDArray[np.float64]

#: After so many batches in a row without a new network, the tree has nothing left that it finds.
_IDLE_BATCHES = 20


@dataclass(frozen=True)
class Mcts(Engine):
    """Takes `batches` times `batch` paths, or as many as evaluations allow if these are limited.

    `exploration` weighs how rarely a child was visited, against scores from 0 (the median of random networks) to 1 (the
    best known). `kept_share` is the probability that a completion keeps the choice of the best network.
    """

    name = "mcts"
    batch: int = 32
    batches: int = 400
    exploration: float = 0.2
    kept_share: float = 0.7

    def _search(self, evaluator: Evaluator, rng: np.random.Generator, known: Genomes, scores: Scores) -> None:
        problem = evaluator.problem
        batch = max(1, min(self.batch, round(min(evaluator.left / 16, self.batch))))
        drawn = evaluator.fresh(evaluator.under_budgets(problem.space.sample_genomes(rng, 4 * batch), rng), batch)
        scores = np.concatenate([scores, evaluator.score(drawn)])
        genomes = np.vstack([known, drawn])
        tree = _Tree(self, evaluator, rng, genomes[scores.argmax()], float(np.median(scores)))
        batches = self.batches if evaluator.left == np.inf else 10 * ceil(evaluator.left / batch)
        idle = 0
        for _ in range(batches):
            idle = 0 if tree.grow(batch) else idle + 1
            if tree.root.is_closed or idle == _IDLE_BATCHES:
                break


class _Node:
    """Some genes are chosen, and what the budgets leave. Its children choose the next gene that has a choice."""

    __slots__ = ("best", "best_score", "children", "is_closed", "left", "number", "scored", "taken", "total", "visits")

    def __init__(self, number: int, taken: Genome, left: Scores) -> None:
        self.number, self.taken, self.left = number, taken, left
        self.children: list[_Node] | None = None
        self.visits = self.scored = 0
        self.total, self.best_score = 0.0, -np.inf
        self.best: Genome | None = None
        #: All networks below were completed.
        self.is_closed = False

    @property
    def value(self) -> float:
        """Between the mean score below and the best: what counts is the best network, but a mean is less by chance."""
        return (self.total / self.scored + self.best_score) / 2


class _Tree:
    def __init__(
        self, settings: Mcts, evaluator: Evaluator, rng: np.random.Generator, best: Genome, usual: float
    ) -> None:
        self.settings, self.evaluator, self.rng, self.usual = settings, evaluator, rng, usual
        self.completions = evaluator.completions
        self.root = _Node(0, np.zeros(len(best), dtype=np.int8), self.completions.left)
        self.root.best, self.root.best_score = best, evaluator.best_score

    def grow(self, batch: int) -> bool:
        """Take a batch of paths, and score their networks. Whether there were new ones."""
        paths = []
        for _ in range(batch):
            if self.root.is_closed:
                break
            paths.append(self._path())
        if not paths:
            return False
        genomes, rows = self.evaluator.fresh_rows(
            pull_to_anchor(self.evaluator.problem, self._completed(paths), self.rng)
        )
        for genome, row, score in zip(genomes, rows, self.evaluator.score(genomes).tolist(), strict=True):
            for node in paths[row]:
                node.scored += 1
                node.total += score
                if score > node.best_score:
                    node.best, node.best_score = genome, score
        return len(rows) > 0

    def _path(self) -> list[_Node]:
        """From the root to a node that was never visited before, or whose network is complete."""
        path, node = [self.root], self.root
        node.visits += 1
        while node.visits > 1 or node is self.root:
            if node.children is None:
                self._expand(node)
            if not node.children:
                node.is_closed = True
                break
            node = self._child(node)
            node.visits += 1
            path.append(node)
        for each in reversed(path):
            if each.children and all(child.is_closed for child in each.children):
                each.is_closed = True
        return path

    def _expand(self, node: _Node) -> None:
        """Give a node its children: a choice each of the next gene that has several. None: the network is complete."""
        node.children = []
        taken, left = node.taken[np.newaxis].copy(), node.left[np.newaxis]
        for number in range(node.number, len(self.completions.steps)):
            gene = self.completions.steps[number].gene
            allowed, added = self.completions.allowed(number, taken, left)
            choices = np.flatnonzero(allowed[0])
            if len(choices) != 1:
                for choice in self.rng.permutation(choices):
                    chosen = taken[0].copy()
                    chosen[gene] = choice
                    node.children.append(_Node(number + 1, chosen, left[0] - added[0, choice]))
                return
            taken[0, gene], left = choices[0], left - added[:, choices[0]]
        node.taken, node.left, node.number = taken[0], left[0], len(self.completions.steps)

    def _child(self, node: _Node) -> _Node:
        """The child with the highest upper confidence bound; first those that were never visited."""
        assert node.children is not None, "the node is expanded"
        open_children = [child for child in node.children if not child.is_closed]
        best, highest = open_children[0], -np.inf
        scale = max(self.evaluator.best_score - self.usual, 1e-12)
        logarithm = log(node.visits)
        for child in open_children:
            if not child.visits:
                return child
            value = (child.value - self.usual) / scale if child.scored else 0.0
            bound = value + self.settings.exploration * sqrt(logarithm / child.visits)
            if bound > highest:
                best, highest = child, bound
        return best

    def _completed(self, paths: list[list[_Node]]) -> Genomes:
        """A network for the last node of each path: near the best one that is known there, under the budgets."""
        ends = [path[-1] for path in paths]
        genomes, left = np.stack([end.taken for end in ends]), np.stack([end.left for end in ends])
        near = np.stack([next(node.best for node in reversed(path) if node.best is not None) for path in paths])
        numbers = np.array([end.number for end in ends])
        return self.completions.completed(genomes, left, numbers, near, self.settings.kept_share, self.rng)
