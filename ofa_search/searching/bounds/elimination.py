"""The highest values of many sums over genes at once, by eliminating one gene after the other.

As `AdditiveCost.minimum` (Dechter, "Bucket elimination", 1999), but for N sums in one go, and on a part of the space.
Each sum has a value for every choice of every gene, which counts only where the gene has an effect, and prices for the
K costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
#: The allowed choices of each gene, ascending.
Domain = tuple[Indices, ...]

#: What a choice costs that is not allowed, whatever the prices. It is finite, so that sums stay numbers.
FORBIDDEN = 1e15
_UNUSABLE = -1
#: Sums are taken together while their largest table has at most so many entries; but never fewer than so many sums.
_ENTRIES, _FEWEST = 1 << 18, 16


class Bucket(NamedTuple):
    """A step: the eliminated gene, all genes of its table (ascending), and the terms and earlier steps that enter."""

    gene: int
    scope: tuple[int, ...]
    terms: tuple[int, ...]
    messages: tuple[int, ...]


def buckets_of(
    n_choices: NDArray[np.int64], scopes: Sequence[tuple[int, ...]], later: Mapping[int, set[int]] | None = None
) -> list[Bucket]:
    """The order of elimination for terms that depend on the genes of `scopes`: the smallest table first.

    Every gene of the space has one bucket, after those of the genes that `later` gives for it.
    """
    later = later or {}
    live: list[tuple[frozenset[int], bool, int]] = [(frozenset(s), False, i) for i, s in enumerate(scopes)]
    remaining, buckets = set(range(len(n_choices))), list[Bucket]()
    while remaining:
        unions = {gene: frozenset({gene}).union(*(s for s, _, _ in live if gene in s)) for gene in remaining}
        possible = [gene for gene in unions if not later.get(gene, set()) & remaining]
        gene = min(possible, key=lambda g: (prod(int(n_choices[x]) for x in unions[g]), g))
        remaining.remove(gene)
        inside = [each for each in live if gene in each[0]]
        terms = tuple(i for _, is_message, i in inside if not is_message)
        messages = tuple(i for _, is_message, i in inside if is_message)
        live = [each for each in live if gene not in each[0]]
        if len(unions[gene]) > 1:
            live.append((unions[gene] - {gene}, True, len(buckets)))
        buckets.append(Bucket(gene, tuple(sorted(unions[gene])), terms, messages))
    return buckets


def aligned(values: Array, genes: Sequence[int], scope: Sequence[int]) -> Array:
    """A table over `genes` as one over `scope`, with length 1 for all others. More axes may follow those of `genes`."""
    order = sorted(range(len(genes)), key=genes.__getitem__)
    more = tuple(range(len(genes), values.ndim))
    moved = values.transpose(*order, *more)
    sizes = iter(moved.shape[: len(genes)])
    return moved.reshape([next(sizes) if gene in genes else 1 for gene in scope] + list(moved.shape[len(genes) :]))


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over the genes of `space`, minus priced costs. Make them by `of`."""

    space: SearchSpace
    costs: tuple[AdditiveCost, ...]
    buckets: tuple[Bucket, ...]
    #: Each term has the number of its cost (or `_UNUSABLE`), genes and finite values. Before them is a term per gene.
    terms: tuple[tuple[int, tuple[int, ...], Array], ...]

    @staticmethod
    def of(space: SearchSpace, costs: Sequence[AdditiveCost], later: Mapping[int, set[int]] | None = None) -> Sums:
        """The costs may be of a space whose genes are the first ones of `space`. `later` is as in `buckets_of`."""
        terms: list[tuple[int, tuple[int, ...], Array]] = []
        for number, cost in enumerate(costs):
            for part in cost.parts:
                is_usable = np.isfinite(part.values)
                terms.append((number, part.genes, np.where(is_usable, part.values, 0.0)))
                if not is_usable.all():
                    terms.append((_UNUSABLE, part.genes, np.where(is_usable, 0.0, FORBIDDEN)))
        own = [(i,) if gene.switch is None else (gene.switch, i) for i, gene in enumerate(space.genes)]
        buckets = buckets_of(space.n_choices, [*own, *(genes for _, genes, _ in terms)], later)
        return Sums(space, tuple(costs), tuple(buckets), tuple(terms))

    @property
    def everything(self) -> Domain:
        """All choices of all genes."""
        return tuple(np.arange(count) for count in self.space.n_choices)

    @cached_property
    def starts(self) -> Indices:
        """The position of each gene's first value."""
        starts: Indices = np.cumsum([0, *self.space.n_choices])
        return starts

    def highest(self, values: Array, prices: Array, domain: Domain) -> Array:
        """The maxima (N,) of sums with values (C, N) and prices (K, N) of costs."""
        largest = max(prod(len(domain[gene]) for gene in bucket.scope) for bucket in self.buckets)
        count = max(_FEWEST, _ENTRIES // largest)
        some = [slice(start, start + count) for start in range(0, values.shape[1], count)]
        return np.concatenate([self._highest(values[:, each], prices[:, each], domain) for each in some])

    def _highest(self, values: Array, prices: Array, domain: Domain) -> Array:
        messages: dict[int, Array] = {}
        total = self._constant(prices)
        for number, bucket in enumerate(self.buckets):
            table = self._table(bucket, messages, values, prices, domain)
            messages[number] = table.max(axis=bucket.scope.index(bucket.gene))
            if len(bucket.scope) == 1:
                total = total + messages.pop(number)
        return total

    def tables(self, values: Array, prices: Array, domain: Domain) -> tuple[list[Array], Array]:
        """The table (…, N) of each step, over its scope, and the maxima."""
        messages: dict[int, Array] = {}
        total = self._constant(prices)
        tables = []
        for number, bucket in enumerate(self.buckets):
            tables.append(self._table(bucket, messages, values, prices, domain))
            messages[number] = tables[-1].max(axis=bucket.scope.index(bucket.gene))
            if len(bucket.scope) == 1:
                total = total + messages.pop(number)
        return tables, total

    def best(self, values: Array, prices: Array, domain: Domain) -> NDArray[np.int8]:
        """Canonical genomes (N, G) with the maxima for values (C, N) and prices (K, N)."""
        tables, total = self.tables(values, prices, domain)
        columns = np.arange(max(len(total), values.shape[1]))
        places = np.zeros((len(self.space.genes), len(columns)), dtype=np.intp)
        for bucket, table in zip(reversed(self.buckets), reversed(tables), strict=True):
            others = tuple(places[gene] for gene in bucket.scope if gene != bucket.gene)
            moved = np.moveaxis(table, bucket.scope.index(bucket.gene), -1)
            places[bucket.gene] = moved[(*others, columns)].argmax(axis=1)
        genomes = np.stack([allowed[place] for allowed, place in zip(domain, places, strict=True)], axis=1)
        return self.space.canonical(genomes.astype(np.int8))

    def costs_of(self, genomes: NDArray[np.int8]) -> Array:
        """The costs (K, N) of genomes (N, G); what cannot be used costs `FORBIDDEN`."""
        costs = [np.minimum(cost.evaluate(genomes[:, : len(cost.space.genes)]), FORBIDDEN) for cost in self.costs]
        return np.array(costs).reshape(len(costs), len(genomes))

    def ones(self, genomes: NDArray[np.int8]) -> Array:
        """Which choices genomes (N, G) have where they have an effect, (N, C)."""
        ones = np.zeros((len(genomes), int(self.starts[-1])))
        np.put_along_axis(ones, genomes + self.starts[:-1], 1.0, axis=1)
        for gene, (start, end) in zip(self.space.genes, pairwise(self.starts), strict=True):
            if gene.switch is not None:
                ones[genomes[:, gene.switch] < gene.switch_from, start:end] = 0.0
        return ones

    def _constant(self, prices: Array) -> Array:
        constants = np.array([cost.constant for cost in self.costs]).reshape(len(self.costs), 1)
        total: Array = -(constants * prices).sum(axis=0)
        return total

    def _table(self, bucket: Bucket, messages: dict[int, Array], values: Array, prices: Array, domain: Domain) -> Array:
        """The table (…, N) of a step; the messages that enter are used up."""
        scope, own = bucket.scope, len(self.space.genes)
        table = np.zeros([*(len(domain[gene]) for gene in scope), values.shape[1]])
        costs: dict[int, Array] = {}
        for term in bucket.terms:
            if term < own:
                self._add_values(table, scope, term, values, domain)
                continue
            number, genes, of_choices = self.terms[term - own]
            part = aligned(of_choices[np.ix_(*(domain[gene] for gene in genes))], genes, scope)
            costs[number] = costs[number] + part if number in costs else part
        for number, part in costs.items():
            table -= part[..., np.newaxis] * (1.0 if number == _UNUSABLE else prices[number])
        for message in bucket.messages:
            inner = tuple(gene for gene in self.buckets[message].scope if gene != self.buckets[message].gene)
            table += aligned(messages.pop(message), inner, scope)
        return table

    def _add_values(self, table: Array, scope: tuple[int, ...], number: int, values: Array, domain: Domain) -> None:
        """Add the values of a gene, where it has an effect."""
        gene, start = self.space.genes[number], self.starts[number]
        own = values[start + domain[number]]
        if not own.any():
            return
        at = [slice(None)] * len(scope)
        if gene.switch is not None:
            at[scope.index(gene.switch)] = slice(int((domain[gene.switch] < gene.switch_from).sum()), None)
        table[tuple(at)] += aligned(own, (number,), scope)
