"""Costs of all networks of a search space: latency, MACs, parameters.

`Cost` is the interface for searches. `AdditiveCost` is a sum over ops. A slot depends on a few genes, so its term is a
small dense array over the choices of these genes. The cost of a genome is a sum of lookups, for more than a million
genomes per second. The minimum and maximum over the whole space are computed exactly, without a search, by eliminating
one gene after the other (min-sum; Dechter, "Bucket elimination", 1999).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import InfeasibleError
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces.base import SearchSpace, Slot
from ofa_profiler.spaces.genes import Genomes

#: Maximum number of entries of a merged array. Merging needs fewer lookups per genome, and all arrays together should
#: fit into the cache of a core.
_MERGED_ENTRIES = 1 << 13
#: Number of genomes that are evaluated at once. Their lookups should fit into the cache too.
_CHUNK = 1 << 12


class Part(NamedTuple):
    """A term of the sum: `values[i, j, ...]` if the genes at the positions `genes` have the indices i, j, ..."""

    genes: tuple[int, ...]
    values: NDArray[np.float64]


class Cost(ABC):
    """A cost for each network of `space`. An unusable network costs infinity."""

    space: SearchSpace

    @abstractmethod
    def evaluate(self, genomes: Genomes) -> NDArray[np.float64]:
        """Genomes (N, G) -> their costs (N,)."""

    @property
    def is_exact(self) -> bool:
        """Whether `minimum` and `maximum` work. Without them, a search cannot prove that no network is feasible."""
        return False

    def minimum(self, fixed: Mapping[int, int] | None = None) -> tuple[float, NDArray[np.int8]]:
        """The exact minimum over the whole space, and a canonical genome (G,) with this cost.

        `fixed` maps positions of genes to the index that they must have. Raises `InfeasibleError` if no architecture
        is usable, and `NotImplementedError` unless `is_exact`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no exact minimum")

    def maximum(self, fixed: Mapping[int, int] | None = None) -> tuple[float, NDArray[np.int8]]:
        """Like `minimum`, but the highest finite cost."""
        raise NotImplementedError(f"{type(self).__name__} has no exact maximum")

    def scaled(self, factor: float) -> Cost:
        """This cost times `factor`, which must be positive."""
        return ScaledCost(self.space, self, factor)


@dataclass(frozen=True, eq=False)
class ScaledCost(Cost):
    """A cost times a positive factor, which keeps the order of the networks."""

    space: SearchSpace
    cost: Cost
    factor: float

    def evaluate(self, genomes: Genomes) -> NDArray[np.float64]:
        return self.cost.evaluate(genomes) * self.factor

    @property
    def is_exact(self) -> bool:
        return self.cost.is_exact

    def minimum(self, fixed: Mapping[int, int] | None = None) -> tuple[float, NDArray[np.int8]]:
        lowest, genome = self.cost.minimum(fixed)
        return lowest * self.factor, genome

    def maximum(self, fixed: Mapping[int, int] | None = None) -> tuple[float, NDArray[np.int8]]:
        highest, genome = self.cost.maximum(fixed)
        return highest * self.factor, genome


@dataclass(frozen=True, eq=False)
class AdditiveCost(Cost):
    """`constant` plus one part per slot of `space`. An unusable op costs infinity."""

    space: SearchSpace
    parts: tuple[Part, ...]
    constant: float = 0.0

    @staticmethod
    def from_ops(space: SearchSpace, value: Callable[[Op], float]) -> AdditiveCost:
        """The sum of `value(op)` over the ops of a network. `inf` marks an op as unusable."""
        return AdditiveCost.from_ops_by_resolution(space, lambda _, op: value(op))

    @staticmethod
    def from_ops_by_resolution(space: SearchSpace, value: Callable[[int | None, Op], float]) -> AdditiveCost:
        """Like `from_ops`, but `value(resolution, op)` also depends on the resolution of the network in pixels.

        The resolution is None if the space has no choice of resolution.
        """
        return AdditiveCost.from_slots(space, lambda _, resolution, op: value(resolution, op))

    @staticmethod
    def from_slots(space: SearchSpace, value: Callable[[Slot, int | None, Op], float]) -> AdditiveCost:
        """Like `from_ops_by_resolution`, but `value(slot, resolution, op)` also depends on the slot of the op.

        Its parts are in the order of the slots.
        """
        parts = []
        resolution = space.resolution_gene
        for slot in space.slots:
            # Add the resolution in front, unless the slot already depends on it.
            extra = () if resolution is None or resolution in slot.genes else (resolution,)
            genes = extra + slot.genes
            choices = [space.genes[g].choices for g in genes]
            values = np.zeros([len(c) for c in choices])
            for index in np.ndindex(*values.shape):
                chosen = [c[i] for c, i in zip(choices, index, strict=True)]
                op = slot.build(*chosen[len(extra) :])
                if op is not None:
                    at = None if resolution is None else int(chosen[genes.index(resolution)])
                    values[index] = value(slot, at, op)
            if np.isnan(values).any() or np.isneginf(values).any():
                raise ValueError(f"slot {slot.name}: the value of an op is NaN or minus infinity")
            parts.append(Part(genes, values))
        return AdditiveCost(space, tuple(parts))

    @staticmethod
    def weighted(costs: Sequence[AdditiveCost], weights: Sequence[float]) -> AdditiveCost:
        """The sum of costs of the same space, each multiplied by a positive weight."""
        scaled = [cost.affine(float(weight), 0.0) for cost, weight in zip(costs, weights, strict=True)]
        parts = tuple(part for cost in scaled for part in cost.parts)
        return AdditiveCost(costs[0].space, parts, sum(cost.constant for cost in scaled))

    def affine(self, scale: float, offset: float) -> AdditiveCost:
        """This cost times `scale`, which must be positive, plus `offset`."""
        if not 0 < scale < np.inf:
            raise ValueError(f"scale must be above zero and finite, not {scale}")
        parts = tuple(Part(part.genes, part.values * scale) for part in self.parts)
        return replace(self, parts=parts, constant=self.constant * scale + offset)

    def scaled(self, factor: float) -> AdditiveCost:
        return self.affine(factor, 0.0)

    # --- many genomes --------------------------------------------------------------------------------

    @cached_property
    def _lookup(self) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float64]]:
        """Weights (G, P), offsets (P,) and all values (V,): the cost is `values[genome @ weights + offsets].sum()`."""
        n_choices = self.space.n_choices
        merged = [_added(group, n_choices) for group in _groups(self.parts, n_choices)]
        weights = np.zeros((len(self.space.genes), len(merged)), dtype=np.float32)
        for column, part in enumerate(merged):
            weights[list(part.genes), column] = np.array(part.values.strides) // part.values.itemsize
        sizes = [part.values.size for part in merged]
        if max(sizes) >= 1 << 24:  # float32 represents all integers up to 2**24
            raise ValueError("a slot of this space depends on too many choices for a dense table")
        offsets = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
        return weights, offsets, np.concatenate([part.values.ravel() for part in merged])

    def evaluate(self, genomes: Genomes) -> NDArray[np.float64]:
        weights, offsets, values = self._lookup
        if genomes.ndim != 2 or genomes.shape[1] != len(weights):
            raise ValueError(f"genomes must have the shape (N, {len(weights)}), not {genomes.shape}")
        costs = np.empty(len(genomes))
        for start in range(0, len(genomes), _CHUNK):
            chunk = genomes[start : start + _CHUNK]
            index = (chunk.astype(np.float32) @ weights).astype(np.int32) + offsets  # exact: small integers
            values.take(index).sum(axis=1, out=costs[start : start + _CHUNK])
        return costs + self.constant

    # --- the whole space -----------------------------------------------------------------------------

    @property
    def is_exact(self) -> bool:
        return True

    def minimum(self, fixed: Mapping[int, int] | None = None) -> tuple[float, NDArray[np.int8]]:
        return self._lowest(self.parts, fixed or {})

    def maximum(self, fixed: Mapping[int, int] | None = None) -> tuple[float, NDArray[np.int8]]:
        negated = [Part(part.genes, np.where(np.isinf(part.values), np.inf, -part.values)) for part in self.parts]
        return self._lowest(negated, fixed or {})

    def _lowest(self, parts: Sequence[Part], fixed: Mapping[int, int]) -> tuple[float, NDArray[np.int8]]:
        n_choices = self.space.n_choices
        held = []
        for gene, index in fixed.items():
            allowed = np.full(n_choices[gene], np.inf)
            allowed[index] = 0.0
            held.append(Part((gene,), allowed))
        genome = _argmin([*parts, *held], n_choices)
        if genome is None:
            raise InfeasibleError(f"every architecture of {self.space.name} needs an op that cannot be used")
        genome = self.space.canonical(genome[np.newaxis])
        return float(self.evaluate(genome)[0]), genome[0]


def _scope(parts: Sequence[Part]) -> tuple[int, ...]:
    return tuple(sorted({gene for part in parts for gene in part.genes}))


def _added(parts: Sequence[Part], n_choices: NDArray[np.int64]) -> Part:
    """The sum of parts as one part over all of their genes, in ascending order."""
    genes = _scope(parts)
    total = np.zeros([n_choices[g] for g in genes])
    for part in parts:
        shape = [n_choices[g] if g in part.genes else 1 for g in genes]
        total += part.values.transpose(np.argsort(part.genes)).reshape(shape)
    return Part(genes, total)


def _groups(parts: Sequence[Part], n_choices: NDArray[np.int64]) -> list[list[Part]]:
    """Group the parts to merge: each goes into the group that grows least, or into a new one."""
    groups: list[list[Part]] = []
    for part in sorted(parts, key=lambda part: -part.values.size):
        grown = {i: prod(n_choices[list(_scope([*group, part]))].tolist()) for i, group in enumerate(groups)}
        best = min(grown, key=grown.__getitem__, default=None)
        if best is not None and (grown[best] <= _MERGED_ENTRIES or set(part.genes) <= set(_scope(groups[best]))):
            groups[best].append(part)
        else:
            groups.append([part])
    return groups


def _argmin(parts: Sequence[Part], n_choices: NDArray[np.int64]) -> NDArray[np.int8] | None:
    """The genome with the lowest sum, or None if all sums are infinite.

    The gene whose elimination needs the smallest array is eliminated first. All parts that depend on it are added
    and replaced by their minimum over it. The best index for each combination of the other genes is stored. At the
    end, the indices of the minimum are read in reverse order.
    """
    parts = list(parts)
    best: list[tuple[int, tuple[int, ...], NDArray[np.int64]]] = []
    remaining = set(_scope(parts))
    while remaining:
        scopes = {gene: _scope([part for part in parts if gene in part.genes]) for gene in remaining}
        gene = min(scopes, key=lambda g: (prod(n_choices[list(scopes[g])].tolist()), g))
        remaining.remove(gene)
        joint = _added([part for part in parts if gene in part.genes], n_choices)
        axis = joint.genes.index(gene)
        others = joint.genes[:axis] + joint.genes[axis + 1 :]
        best.append((gene, others, joint.values.argmin(axis=axis)))
        parts = [part for part in parts if gene not in part.genes] + [Part(others, joint.values.min(axis=axis))]
    if not np.isfinite(sum(float(part.values) for part in parts)):
        return None
    genome = np.zeros(len(n_choices), dtype=np.int8)
    for gene, others, index in reversed(best):
        genome[gene] = index[tuple(genome[list(others)])]
    return genome
