"""Partial networks, gene by gene, and which choices still allow a complete network under the budgets.

The genes come in the reverse order of an elimination. So its tables say exactly how much each choice adds to the lowest
cost that a partial network can still have (`AdditiveProblem` drops partial networks in the same way). First come the
genes that decide most, the resolution and the depths, unless this order needs large tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_search.searching.bounds.additive import ROUNDING, Losses
from ofa_search.searching.bounds.elimination import Array, Indices, Sums
from ofa_search.searching.bounds.proof import as_sum
from ofa_search.searching.problem import Problem

#: Of the largest table.
_MOST_ENTRIES = 1 << 16


class Step(NamedTuple):
    """What each choice of `gene` adds to the lowest cost: (rows, choices, K), a row for the choices of `others`."""

    gene: int
    others: Indices
    strides: Indices
    added: Array


@dataclass(frozen=True, eq=False)
class Completions:
    """The steps by which networks are completed, and what the budgets leave above the lowest cost, (K,).

    Several limits that can be met one by one cannot always be met together. Therefore their sum, each in units of its
    budget, is one more limit. Costs that are no sums are left out.
    """

    space: SearchSpace
    steps: tuple[Step, ...]
    left: Array

    @staticmethod
    def of(problem: Problem) -> Completions:
        """For the constraints of a problem."""
        limits = [(cost, each.budget) for each in problem.constraints if (cost := as_sum(each.cost)) is not None]
        budgets = np.array([budget for _, budget in limits])
        prices = [*np.eye(len(limits)), *([1 / budgets] if len(limits) > 1 else [])]
        sums = _ordered(problem.space, [cost for cost, _ in limits])
        losses = [Losses.of(sums, each) for each in prices]
        most = [float(each @ budgets) * (1 + ROUNDING) for each in prices]
        left = [limit + lost.highest for limit, lost in zip(most, losses, strict=True)]
        numbers = range(len(sums.buckets) - 1, -1, -1)
        steps = [_step(sums, number, [lost.tables[number] for lost in losses]) for number in numbers]
        return Completions(problem.space, tuple(steps), np.array(left))

    def allowed(self, number: int, genomes: Genomes, left: Array) -> tuple[NDArray[np.bool_], Array]:
        """Which choices of a step's gene partial genomes (N, G) may make, (N, C), and what these add (N, C, K).

        `left` (N, K) is what the budgets leave. A gene without effect has its first choice alone.
        """
        step, gene = self.steps[number], self.space.genes[self.steps[number].gene]
        added = step.added[genomes[:, step.others].astype(np.intp) @ step.strides]
        allowed = np.asarray((added <= left[:, np.newaxis]).all(axis=2))
        if gene.switch is not None and gene.switch in step.others:
            allowed[genomes[:, gene.switch] < gene.switch_from, 1:] = False
        return allowed, added

    def near(self, genomes: Genomes, rng: np.random.Generator) -> Genomes:
        """Genomes under the budgets near these (N, G): they keep each choice that allows it, gene after gene.

        Genomes under the budgets, if canonical, stay as they are.
        """
        taken, left = np.zeros_like(genomes), np.repeat(self.left[np.newaxis], len(genomes), axis=0)
        return self.completed(taken, left, np.zeros(len(genomes), dtype=np.intp), genomes, 1.0, rng)

    def completed(
        self,
        taken: Genomes,
        left: Array,
        numbers: Indices,
        near: Genomes,
        kept_share: float,
        rng: np.random.Generator,
    ) -> Genomes:
        """Complete genomes (N, G) of which the steps before `numbers` (N,) are taken and `left` (N, K) is left.

        With the probability `kept_share`, a choice is that of `near` (N, G) where it is allowed, else any allowed one.
        """
        genomes, left, rows = taken.copy(), left.copy(), np.arange(len(taken))
        for number in range(int(numbers.min(initial=len(self.steps))), len(self.steps)):
            gene = self.steps[number].gene
            allowed, added = self.allowed(number, genomes, left)
            order = rng.random(allowed.shape) * allowed
            kept = near[:, gene].astype(np.intp)
            order[rows, kept] += (rng.random(len(rows)) < kept_share) & allowed[rows, kept]
            chosen = order.argmax(axis=1)
            mine = numbers <= number
            genomes[mine, gene] = chosen[mine]
            left[mine] -= added[rows, chosen][mine]
        return genomes


def _ordered(space: SearchSpace, costs: Sequence[AdditiveCost]) -> Sums:
    """Sums in which the genes that decide most are eliminated last, as far as tables stay small."""
    dependents: dict[int, set[int]] = {}
    for number, gene in enumerate(space.genes):
        if gene.switch is not None:
            dependents.setdefault(gene.switch, set()).add(number)
    first = set(dependents) if space.resolution_gene is None else {*dependents, space.resolution_gene}
    others = set(range(len(space.genes))) - first
    strict = {gene: others | dependents.get(gene, set()) for gene in first}
    for later in (strict, dependents):
        sums = Sums.of(space, costs, later)
        if max(_size(space, bucket.scope) for bucket in sums.buckets) <= _MOST_ENTRIES:
            return sums
    return Sums.of(space, costs)


def _size(space: SearchSpace, genes: Sequence[int]) -> int:
    return prod(int(space.n_choices[gene]) for gene in genes)


def _step(sums: Sums, number: int, tables: Sequence[Array]) -> Step:
    bucket, sizes = sums.buckets[number], sums.space.n_choices
    others = [gene for gene in bucket.scope if gene != bucket.gene]
    shape = [int(sizes[gene]) for gene in others]
    moved = [np.moveaxis(table, bucket.scope.index(bucket.gene), -1) for table in tables]
    rows, choices = prod(shape), int(sizes[bucket.gene])
    added = np.stack(moved, axis=-1) if moved else np.empty((*shape, choices, 0))
    strides = [prod(shape[place + 1 :]) for place in range(len(shape))]
    return Step(
        bucket.gene,
        np.array(others, dtype=np.intp),
        np.array(strides, dtype=np.intp),
        added.reshape(rows, choices, len(moved)),
    )
