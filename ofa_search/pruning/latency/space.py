"""The networks that pruning can make of one network, as a search space.

A gene is how many units of a group are kept. Its levels are multiples of 8 channels, and all units. A slot is a block
of the network, which depends on the groups whose channels it reads and makes. Groups that one block would combine in
too many ways share a gene: then it is a common share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from ofa_profiler.networks.op import Op
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.spaces.base import Preprocessing, SearchSpace, Slot
from ofa_profiler.spaces.genes import Gene, Genomes
from ofa_search.pruning.groups import Counts, Group

#: Channels are kept in multiples of this: fewer are not faster on processors with vectors.
CHANNEL_STEP = 8
#: About the smallest part of a group that is kept.
SMALLEST_PART = 1 / 8
#: A gene has at most so many levels, so that each of them can be measured.
MOST_LEVELS = 12
#: A slot depends on at most so many genes.
MOST_GENES = 3
#: Kinds of genes: units of one group; the common share of several.
UNITS, SHARE = "units", "share"


def levels_of(group: Group, most: int = MOST_LEVELS) -> tuple[int, ...]:
    """How many units of a group can be kept, in ascending order: evenly spread, the last one is all."""
    step = math.lcm(CHANNEL_STEP, group.unit_channels) // group.unit_channels
    least = max(step, math.ceil(SMALLEST_PART * group.n_units / step) * step)
    found = sorted({*range(least, group.n_units, step), group.n_units})
    places = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int))
    return tuple(found[place] for place in places)


_AS_IT_IS = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Width:
    """A gene: the units that are kept of its groups, for each of its levels in ascending order."""

    groups: tuple[str, ...]
    #: For each level, the units of each group.
    levels: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(group: Group) -> Width:
        """The gene of one group."""
        return Width((group.name,), tuple((n,) for n in levels_of(group)))

    @staticmethod
    def joined(widths: Sequence[Width]) -> Width:
        """One gene for the groups of several: each group has the level nearest to the common share."""
        length = max(len(width.levels) for width in widths)
        groups = tuple(name for width in widths for name in width.groups)
        levels = []
        for share in np.linspace(0.0, 1.0, length):
            nearest = (width.levels[round(share * (len(width.levels) - 1))] for width in widths)
            levels.append(tuple(n for each in nearest for n in each))
        return Width(groups, tuple(dict.fromkeys(levels)))

    @property
    def name(self) -> str:
        """Its first group, and how many more there are."""
        more = f" and {len(self.groups) - 1} more" if len(self.groups) > 1 else ""
        return f"{self.groups[0]}{more}"

    @property
    def gene(self) -> Gene:
        """The gene. Its choices are units of the only group, or shares of all units of several."""
        if len(self.groups) == 1:
            return Gene(UNITS, tuple(level[0] for level in self.levels), slot=self.name)
        return Gene(SHARE, tuple(sum(level) / sum(self.levels[-1]) for level in self.levels), slot=self.name)


@dataclass(frozen=True)
class Place:
    """A slot: a block that depends on `groups`, in the order of the network; on none if it never changes.

    Slots of one `template` are equal for equal numbers of units: it is the name of the first of them.
    """

    name: str
    template: str
    groups: tuple[str, ...]
    kind: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def key(self, counts: Counts) -> str:
        """The key of the op: template and units, like `layer1.0.conv1 16>8`."""
        return point_key(self.template, [counts[group] for group in self.groups])

    def op(self, counts: Counts) -> Op:
        """The op, with the tensors of the whole network."""
        return Op(self.kind, self.inputs, self.outputs, {}, self.key(counts))


def point_key(template: str, units: Sequence[int]) -> str:
    """The key of a point of a template."""
    return f"{template} {'>'.join(map(str, units))}" if units else template


def parse_key(key: str) -> tuple[str, tuple[int, ...]]:
    """Template and units of a key. Raises `ValueError`."""
    template, _, units = key.partition(" ")
    return template, tuple(map(int, units.split(">"))) if units else ()


@dataclass(frozen=True, eq=False)
class PruningSpace(SearchSpace):
    """The networks that pruning can make of one network."""

    widths: tuple[Width, ...]
    places: tuple[Place, ...] = ()
    name: str = "pruning"
    family: str = "pruning"
    n_classes: int = 0
    preprocessing: Preprocessing = _AS_IT_IS

    @staticmethod
    def of(groups: Sequence[Group], places: Sequence[Place] = ()) -> PruningSpace:
        """A gene per group; one for all groups of a place that would have too many genes."""
        widths = {group.name: Width.of(group) for group in groups}
        while True:
            crowded = [found for place in places if len(found := _widths(place, widths)) > MOST_GENES]
            if not crowded:
                break
            joined = Width.joined(sorted(crowded, key=len)[-1])
            widths |= dict.fromkeys(joined.groups, joined)
        return PruningSpace(tuple(dict.fromkeys(widths[group.name] for group in groups)), tuple(places))

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        return tuple(width.gene for width in self.widths)

    @cached_property
    def gene_of(self) -> Mapping[str, int]:
        """The position of the gene of each group."""
        return {name: i for i, width in enumerate(self.widths) for name in width.groups}

    def genes_of(self, place: Place) -> tuple[int, ...]:
        """The positions of the genes of a place."""
        return tuple(dict.fromkeys(self.gene_of[group] for group in place.groups))

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        # A place without genes is in the constant of a cost: a slot has at least one.
        return tuple(
            Slot(place.name, self.genes_of(place), partial(self._op, place)) for place in self.places if place.groups
        )

    def _op(self, place: Place, *values: float) -> Op:
        levels = (self.genes[g].choices.index(value) for g, value in zip(self.genes_of(place), values, strict=True))
        return place.op(self.counts_at(dict(zip(self.genes_of(place), levels, strict=True))))

    # --- numbers of units ----------------------------------------------------------------------------

    def counts_at(self, levels: Mapping[int, int]) -> dict[str, int]:
        """Position of a gene -> its level, as the units of the groups of these genes."""
        found: dict[str, int] = {}
        for gene, level in levels.items():
            found.update(zip(self.widths[gene].groups, self.widths[gene].levels[level], strict=True))
        return found

    def counts(self, genome: Genomes) -> dict[str, int]:
        """One genome (G,) as the units of all groups."""
        return self.counts_at({gene: int(level) for gene, level in enumerate(genome)})

    def genome(self, counts: Counts) -> Genomes:
        """The genome (G,) of units of all groups, which must be levels. Raises `ValueError`."""
        levels = [width.levels.index(tuple(counts[group] for group in width.groups)) for width in self.widths]
        return np.array(levels, dtype=np.int8)

    @property
    def full(self) -> Genomes:
        """The genome of the whole network."""
        return (self.n_choices - 1).astype(np.int8)


def _widths(place: Place, widths: Mapping[str, Width]) -> list[Width]:
    return list(dict.fromkeys(widths[group] for group in place.groups))
