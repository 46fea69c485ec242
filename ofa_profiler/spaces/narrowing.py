"""A space with fewer choices: some of its genes keep only a part of their options.

It is a space like any other, with the same genes and slots, so costs, bounds and engines need not know that it is one.
Only what has a number for each option of the whole space (the inputs of a predictor) asks for `widened` genomes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces.base import Preprocessing, SearchSpace, Slot
from ofa_profiler.spaces.codec import Codec
from ofa_profiler.spaces.costs import AdditiveCost, Part
from ofa_profiler.spaces.genes import RESOLUTION, Gene, Genomes
from ofa_profiler.spaces.mixed import MixedSpace

#: The values of a choice, by its name, or the only one.
Fixed = Mapping[str, Any]
#: A message lists at most so many names.
_MOST_NAMES = 12


@dataclass(frozen=True, kw_only=True)
class NarrowedSpace(SearchSpace):
    """The networks of `whole` whose genes have the options `kept`, by their indices, in ascending order.

    The resolution is narrowed by `resolutions` and `valid_resolutions`; its gene keeps all of `resolutions`.
    """

    whole: SearchSpace
    kept: tuple[tuple[int, ...], ...]
    name: str
    family: str
    n_classes: int
    preprocessing: Preprocessing
    resolutions: tuple[int, ...]
    valid_resolutions: tuple[int, ...]

    def _replaced(self, **changes: Any) -> SearchSpace:
        own = {name: value for name, value in changes.items() if name in ("resolutions", "n_classes", "name")}
        return replace(self, whole=self.whole._replaced(**changes), **own)

    @property
    def fixed(self) -> Mapping[str, float]:
        return self.whole.fixed

    @property
    def unrestricted(self) -> SearchSpace:
        return self.whole.unrestricted

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        return tuple(self._gene(number, gene) for number, gene in enumerate(self.whole.genes))

    def _gene(self, number: int, gene: Gene) -> Gene:
        if gene.kind != RESOLUTION:
            gene = replace(gene, choices=tuple(gene.choices[index] for index in self.kept[number]))
        if gene.switch is None:
            return gene
        # So many options of the switch switch it off; with all of them, it never has an effect.
        return replace(gene, switch_from=sum(index < gene.switch_from for index in self.kept[gene.switch]))

    @property
    def slots(self) -> tuple[Slot, ...]:
        return self.whole.slots

    @cached_property
    def labels(self) -> tuple[tuple[Any, ...], ...]:
        whole = self.whole.labels
        return tuple(
            labels if gene.kind == RESOLUTION else tuple(labels[index] for index in kept)
            for gene, labels, kept in zip(self.genes, whole, self.kept, strict=True)
        )

    @cached_property
    def codec(self) -> Codec:
        return _NarrowedCodec(self)

    @cached_property
    def _indices(self) -> NDArray[np.int8]:
        """The index in the whole space of each option of each gene, (G, options)."""
        table = np.zeros((len(self.genes), max(len(gene.choices) for gene in self.genes)), dtype=np.int8)
        for row, gene, kept in zip(table, self.genes, self.kept, strict=True):
            row[: len(gene.choices)] = range(len(gene.choices)) if gene.kind == RESOLUTION else kept
        return table

    def in_whole(self, genomes: Genomes) -> Genomes:
        """Genomes (N, G) -> those of the same networks in `whole`."""
        return self.whole.canonical(self._plain(genomes))

    def widened(self, genomes: Genomes) -> Genomes:
        return self.whole.widened(self.in_whole(genomes))

    def _plain(self, genomes: Genomes) -> Genomes:
        plain: Genomes = self._indices[np.arange(len(self.genes)), genomes]
        return plain

    def canonical(self, genomes: Genomes) -> Genomes:
        plain = self._plain(genomes)
        canonical: Genomes = np.where(self.whole.canonical(plain) != plain, 0, genomes).astype(np.int8)
        return canonical


class _NarrowedCodec(Codec):
    """The codec of the whole space, for those of its networks that are left."""

    def __init__(self, space: NarrowedSpace) -> None:
        self._narrowed, self._whole = space, space.whole.codec
        options = max(len(gene.choices) for gene in space.whole.genes)
        self._numbers = np.zeros((len(space.genes), options), dtype=np.int8)
        for row, indices, gene in zip(self._numbers, space._indices, space.genes, strict=True):
            row[indices[: len(gene.choices)]] = range(len(gene.choices))

    def _narrow(self, architectures: Sequence[Architecture]) -> tuple[Genomes, NDArray[np.bool_]]:
        """Canonical genomes, and which architectures are networks of the narrowed space."""
        whole = self._whole.encode(architectures)
        genomes = self._narrowed.canonical(self._numbers[np.arange(whole.shape[1]), whole])
        return genomes, (self._narrowed.in_whole(genomes) == whole).all(axis=1)

    def encode(self, architectures: Sequence[Architecture]) -> Genomes:
        genomes, fits = self._narrow(architectures)
        if not fits.all():
            raise ValueError("a choice that was excluded")
        return genomes

    def decode(self, genomes: Genomes) -> list[Architecture]:
        return self._whole.decode(self._narrowed.in_whole(genomes))

    def from_values(self, values: Sequence[float]) -> Architecture:
        return self._whole.from_values(values)

    def problems(self, architecture: Architecture) -> Iterator[str]:
        found = list(self._whole.problems(architecture))
        yield from found or [f"space {self._narrowed.name} is restricted to other choices than the architecture has"]


def narrowed(space: SearchSpace, fixed: Fixed) -> SearchSpace:
    """The networks of `space` whose choices have the given values.

    A name is that of a gene (`stage2.block1.kernel_size`), or leaves parts of it out but the last: then it stands for
    all such genes (`stage2.kernel_size`, `kernel_size`). A value is one option, as text or as it is, or several.
    Raises `UsageError` for unknown names and values, with the known ones.
    """
    if not fixed:
        return space
    if isinstance(space, MixedSpace):
        return MixedSpace.of(narrowed(space.plain, fixed))
    kept = [list(range(len(gene.choices))) for gene in space.genes]
    sizes: Sequence[int] = space.valid_resolutions
    for name, values in fixed.items():
        for number in _genes_named(space, name):
            if space.genes[number].kind == RESOLUTION:
                chosen = _options(name, values, space.valid_resolutions)
                sizes = [size for index, size in enumerate(space.valid_resolutions) if index in chosen]
            else:
                chosen = _options(name, values, space.labels[number])
                kept[number] = [index for index in kept[number] if index in chosen]
                if not kept[number]:
                    raise UsageError(f"{name}: nothing is left of {space.genes[number].name}, which is fixed twice")
    if sizes:
        now = [size for size in sizes if size in space.resolutions] or sizes
        space = space.with_resolutions(now) if space.resolution_gene is not None else space
    return NarrowedSpace(
        whole=space,
        kept=tuple(map(tuple, kept)),
        name=space.name,
        family=space.family,
        n_classes=space.n_classes,
        preprocessing=space.preprocessing,
        resolutions=space.resolutions,
        valid_resolutions=tuple(sizes),
    )


def _genes_named(space: SearchSpace, name: str) -> list[int]:
    names = [gene.name for gene in space.genes]
    if name in names:
        return [names.index(name)]
    if found := [number for number, full in enumerate(names) if _stands_for(name, full)]:
        return found
    last = dict.fromkeys(full.rsplit(".", 1)[-1] for full in names)
    known = list(last) if len(last) < len(names) else names
    rest = f" and {len(known) - _MOST_NAMES} more" if len(known) > _MOST_NAMES else ""
    example = f", or of a part such as {names[-1]}" if known is not names else ""
    raise UsageError(
        f"space {space.name} has no choice {name!r:.60}; it has {', '.join(known[:_MOST_NAMES])}{rest}{example}"
    )


def _stands_for(name: str, full: str) -> bool:
    """Whether the parts of `name` are parts of `full`, in this order, with the same last one."""
    parts = iter(full.split("."))
    return name.rsplit(".", 1)[-1] == full.rsplit(".", 1)[-1] and all(part in parts for part in name.split("."))


def _options(name: str, values: Any, known: Sequence[Any]) -> set[int]:
    """The positions of values among the known ones."""
    several = values if isinstance(values, list | tuple | set | frozenset) else [values]
    found = set()
    for value in several:
        same = [index for index, option in enumerate(known) if _is_equal(option, value)]
        if not same:
            raise UsageError(f"{name} cannot be {value!s:.60}; it can be {', '.join(map(str, known))}")
        found.update(same)
    return found


def _is_equal(option: Any, value: Any) -> bool:
    if isinstance(value, str) and not isinstance(option, str):
        try:
            return float(value) == float(option)
        except ValueError:
            return value.lower() == str(option).lower()
    return bool(option == value)


def narrowed_cost(cost: AdditiveCost, space: SearchSpace) -> AdditiveCost:
    """A cost of `space.unrestricted`, at any resolutions on which it does not depend, as one of `space`."""
    whole = space.unrestricted
    if whole is space:
        return replace(cost, space=space)
    options = [
        [before.choices.index(choice) for choice in gene.choices]
        for gene, before in zip(space.genes, whole.genes, strict=True)
    ]
    parts = tuple(Part(part.genes, part.values[np.ix_(*(options[gene] for gene in part.genes))]) for part in cost.parts)
    return AdditiveCost(space, parts, cost.constant)
