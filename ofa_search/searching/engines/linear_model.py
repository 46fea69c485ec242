"""The best genomes by linear models of an objective, under budgets, for many models at once.

Around a genome, an objective with gradients is nearly a sum of one value for each gene, and the budgets limit sums of
costs. Once a few genes are given (the depths, the resolution), such a problem falls apart into groups of genes that
share no cost, for example the kernel and the expansion of one block. For a price of the costs, each group has its own
best choice, and bisection finds the price at which a network just keeps the budgets (the Lagrangian relaxation of the
multiple-choice knapsack problem; Sinha and Zoltners, 1979).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost, Part
from ofa_search.searching.problem import Problem

Array = NDArray[np.floating[Any]]
Indices = NDArray[np.intp]

#: The choices of all genes of a group are listed. Genes are given until no group has more.
_MOST_CHOICES = 128
#: From the logarithm of a known price, bisection starts so far down and up; and its steps.
_REACH, _STEPS = (-1.5, 2.5), 6
#: The same where no price is known, from the value of a choice over its cost.
_FIRST_REACH, _FIRST_STEPS = (-5.0, 7.0), 9
#: Logarithms of prices beyond this would be zero or infinite in float32, and padding has infinite costs.
_FARTHEST = 80.0


@dataclass(frozen=True, eq=False)
class _Groups:
    """Groups of genes, and their joint choices; all are padded to the same length.

    `genes` (n, L) are padded with the number of genes, `choices` (n, A, L) with 0. `sums` (A * n, V) add up the values
    of each joint choice, for which they are 1. `costs` (K, A, R) are costs by the given genes, infinite for padding.
    The row of a group is `given @ weights + offsets`, weights (D, n).
    """

    genes: Indices
    choices: NDArray[np.int8]
    sums: Array
    costs: Array
    weights: Indices
    offsets: Indices


class Found(NamedTuple):
    """Canonical genomes (M, G), the model of each, and the logarithm of its price."""

    genomes: Genomes
    models: Indices
    prices: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearModels:
    """The budgets of a problem, for any number of linear models of its objective. `given` (D,) are genes."""

    space: SearchSpace
    budgets: Array
    given: Indices
    #: For each constraint, the costs that depend on given genes alone.
    shared: tuple[AdditiveCost, ...]
    groups: _Groups

    @staticmethod
    def of(problem: Problem) -> LinearModels | None:
        """None if a cost is no sum, nothing is limited, or no gene is left to choose."""
        costs = [each.cost for each in problem.constraints if isinstance(each.cost, AdditiveCost)]
        if not costs or len(costs) < len(problem.constraints):
            return None
        space = problem.space
        given, groups = _separated(space, [set(part.genes) for cost in costs for part in cost.parts])
        if not groups:
            return None
        return LinearModels(
            space,
            np.array([constraint.budget for constraint in problem.constraints]),
            np.array(given, dtype=np.intp),
            tuple(
                AdditiveCost(space, tuple(part for part in cost.parts if set(part.genes) <= set(given)), cost.constant)
                for cost in costs
            ),
            _tabulated(space, given, groups, costs),
        )

    @cached_property
    def _of_columns(self) -> tuple[Indices, Indices]:
        """Gene and choice of each value."""
        sizes = self.space.n_choices
        return np.repeat(np.arange(len(sizes)), sizes), np.concatenate([np.arange(size) for size in sizes])

    def best(
        self,
        parents: Genomes,
        values: Array,
        changes: Array,
        given: Genomes,
        weights: Array,
        prices: NDArray[np.float64] | None = None,
    ) -> Found:
        """Find genomes that keep the budgets, with nearly the highest values.

        Each of N models has a parent (G,), the value of each choice of each gene (their sum is the objective's linear
        model), the value that is lost for each active gene that differs from the parent's, the given genes (D,), a
        weight for each of the K constraints, and perhaps the logarithm of a price that may be about right. A model that
        cannot keep the budgets has no genome.
        """
        genes, choices = self._of_columns
        filled = np.zeros((len(given), len(self.space.genes) + 1), dtype=np.int8)
        filled[:, self.given] = given
        values = values - changes[:, np.newaxis] * (choices != parents[:, genes])
        values = np.where(_active(self.space, filled)[:, genes], values, np.float32(0))
        groups = self.groups
        gains = (groups.sums @ values.T).reshape(-1, len(groups.genes), len(given))
        costs = groups.costs.take((given.astype(np.intp) @ groups.weights + groups.offsets).T, axis=2)
        rest = np.array([cost.evaluate(filled[:, :-1]) for cost in self.shared])
        left = self.budgets[:, np.newaxis] - rest
        shares = (weights / self.budgets).astype(np.float32)
        priced = costs[0] * shares[:, 0] if len(costs) == 1 else np.einsum("mk,kanm->anm", shares, costs)
        return self._under_budgets(filled, gains, costs, priced, left, prices)

    def _under_budgets(
        self,
        filled: Genomes,
        gains: Array,
        costs: Array,
        priced: Array,
        left: Array,
        prices: NDArray[np.float64] | None,
    ) -> Found:
        """Bisect: gains and prices of joint choices (A, n, N), costs (K, A, n, N), what is left of budgets (K, N)."""
        reach, steps = (_REACH, _STEPS) if prices is not None else (_FIRST_REACH, _FIRST_STEPS)
        if prices is None:
            prices = np.full(len(filled), np.log(_spread(gains) / _spread(priced)))
        low, high = (prices + end for end in reach)
        kept = np.zeros(len(filled), dtype=np.bool_)
        for _ in range(steps):
            middle = (low + high) / 2
            worth = _worth(gains, priced, middle)
            # Of equal ones, the most expensive counts.
            spent = np.where(worth >= worth.max(axis=0), costs, np.float32(0)).max(axis=1).sum(axis=1)
            keeps = (spent <= left).all(axis=0)
            high, low = np.where(keeps, middle, high), np.where(keeps, low, middle)
            kept |= keeps
        models = np.flatnonzero(kept)
        chosen = _worth(gains[:, :, models], priced[:, :, models], high[models]).argmax(axis=0)
        return Found(self.space.canonical(self._with(filled[models], chosen.T)), models, high[models])

    def _with(self, filled: Genomes, chosen: Indices) -> Genomes:
        """Genomes with the chosen joint choices of all groups."""
        filled = filled.copy()
        filled[:, self.groups.genes] = self.groups.choices[np.arange(chosen.shape[1]), chosen]
        return filled[:, :-1]


def _worth(gains: Array, priced: Array, log_prices: Array) -> Array:
    """What joint choices (A, n, N) gain beyond their price."""
    prices = np.exp(log_prices.clip(-_FARTHEST, _FARTHEST)).astype(np.float32)
    worth: Array = gains - prices * priced
    return worth


def _spread(values: Array) -> float:
    """How much the joint choices of a group differ, on average; above zero."""
    finite = np.where(np.isfinite(values), values, np.nan)
    return float(np.nanmean(np.nanmax(finite, axis=0) - np.nanmin(finite, axis=0))) or 1.0


def _active(space: SearchSpace, genomes: Genomes) -> NDArray[np.bool_]:
    """Which genes have an effect, (N, G)."""
    columns = [
        np.ones(len(genomes), dtype=np.bool_) if gene.switch is None else genomes[:, gene.switch] >= gene.switch_from
        for gene in space.genes
    ]
    return np.stack(columns, axis=1)


def _separated(space: SearchSpace, scopes: Sequence[set[int]]) -> tuple[list[int], list[list[int]]]:
    """The genes that must be given, and the groups of the others."""
    given = {gene.switch for gene in space.genes if gene.switch is not None}
    if space.resolution_gene is not None:
        given.add(space.resolution_gene)
    while True:
        groups = _connected([gene for gene in range(len(space.genes)) if gene not in given], scopes)
        largest = max(groups, key=lambda genes: _joint(space, genes), default=[])
        if _joint(space, largest) <= _MOST_CHOICES:
            return sorted(given), groups
        given.add(max(largest, key=lambda gene: (sum(gene in scope for scope in scopes), -gene)))


def _joint(space: SearchSpace, genes: Iterable[int]) -> int:
    return prod(len(space.genes[gene].choices) for gene in genes)


def _connected(genes: Sequence[int], scopes: Sequence[set[int]]) -> list[list[int]]:
    """Groups of genes that share no scope with others."""
    groups = [{gene} for gene in genes]
    for scope in scopes:
        joined = [group for group in groups if group & scope]
        if len(joined) > 1:
            groups = [group for group in groups if not group & scope] + [set().union(*joined)]
    return sorted(sorted(group) for group in groups)


def _tabulated(
    space: SearchSpace, given: Sequence[int], groups: Sequence[Sequence[int]], costs: Sequence[AdditiveCost]
) -> _Groups:
    """The costs of all joint choices of each group, for all values of the given genes on which they depend."""
    longest = max(map(len, groups), default=0)
    most = max((_joint(space, genes) for genes in groups), default=0)
    first = np.cumsum([0, *space.n_choices])
    made = _Groups(
        np.full((len(groups), longest), len(space.genes), dtype=np.intp),
        np.zeros((len(groups), most, longest), dtype=np.int8),
        np.zeros((most, len(groups), first[-1]), dtype=np.float32),
        np.empty(0),
        np.zeros((len(given), len(groups)), dtype=np.intp),
        np.zeros(len(groups), dtype=np.intp),
    )
    tables: list[Array] = []
    for number, genes in enumerate(groups):
        joint = np.array(list(product(*(range(len(space.genes[gene].choices)) for gene in genes))), dtype=np.int8)
        made.genes[number, : len(genes)] = genes
        made.choices[number, : len(joint), : len(genes)] = joint
        made.sums[np.arange(len(joint))[:, np.newaxis], number, first[list(genes)] + joint] = 1
        parts = [[part for part in cost.parts if set(part.genes) & set(genes)] for cost in costs]
        needed = sorted({gene for each in parts for part in each for gene in part.genes} - set(genes))
        shape = [len(space.genes[gene].choices) for gene in needed]
        for place, gene in enumerate(needed):
            made.weights[given.index(gene), number] = prod(shape[place + 1 :])
        made.offsets[number] = sum(table.shape[1] for table in tables)
        table = np.full((len(costs), prod(shape), most), np.inf)
        for of_cost, each in zip(table, parts, strict=True):
            of_cost[:, : len(joint)] = _summed(space, each, [*needed, *genes]).reshape(prod(shape), len(joint))
        tables.append(table)
    return _Groups(
        made.genes,
        made.choices,
        made.sums.reshape(most * len(groups), -1),
        np.concatenate(tables, axis=1).astype(np.float32).transpose(0, 2, 1).copy(),
        made.weights,
        made.offsets,
    )


def _summed(space: SearchSpace, parts: Sequence[Part], genes: Sequence[int]) -> Array:
    """The sum of parts over all choices of `genes`, in this order."""
    total = np.zeros([len(space.genes[gene].choices) for gene in genes])
    for part in parts:
        order = sorted(range(len(part.genes)), key=lambda axis: genes.index(part.genes[axis]))
        shape = [size if gene in part.genes else 1 for gene, size in zip(genes, total.shape, strict=True)]
        total += part.values.transpose(order).reshape(shape)
    return total
