"""The small changes of genomes from which engines make new ones.

In mixed precision, each change of precision inside a network costs time. So the bits of a network are changed in runs
of slots, and what was inactive takes over the bits of the slot before it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search.searching.problem import Genome

#: Kinds of mutations in mixed precision; all others change bits and other genes.
_ONLY_BITS, _ONLY_OTHERS = 0, 1


def mutated(space: SearchSpace, genomes: Genomes, rate: float, rng: np.random.Generator) -> Genomes:
    """Copies of genomes (N, G) in which each gene is drawn again with the probability `rate`, not canonical.

    In mixed precision, a third of them change in the bits of one run of slots alone, a third in other genes alone, and
    a third in both.
    """
    own = _own_genes(space)
    plain = genomes[:, :own]
    is_new = rng.random(plain.shape, dtype=np.float32) < rate
    drawn = rng.integers(0, space.n_choices[:own], size=plain.shape, dtype=np.int8)
    if not isinstance(space, MixedSpace):
        changed: Genomes = np.where(is_new, drawn, plain)
        return changed
    bits = _spread_bits(space, genomes)
    count, slots = bits.shape
    kind = rng.integers(0, 3, (count, 1))
    changed = np.where(is_new & (kind != _ONLY_BITS), drawn, plain)
    length = np.floor((slots + 1) ** rng.random(count)).astype(int)  # short runs are as frequent as long ones
    first = rng.integers(1 - length, slots)
    places = np.arange(slots)
    inside = (places >= first[:, np.newaxis]) & (places < (first + length)[:, np.newaxis])
    inside &= kind != _ONLY_OTHERS
    return np.hstack([changed, np.where(inside, rng.integers(0, 2, (count, 1), dtype=np.int8), bits)])


def crossed(space: SearchSpace, first: Genomes, second: Genomes, rng: np.random.Generator) -> Genomes:
    """Each gene from one of two parents, both (N, G), not canonical.

    In mixed precision, the bits before a random slot are those of one parent, the others those of the other one.
    """
    own = _own_genes(space)
    from_second = rng.integers(0, 2, size=(len(first), own), dtype=np.bool_)
    chosen: Genomes = np.where(from_second, second[:, :own], first[:, :own])
    if not isinstance(space, MixedSpace):
        return chosen
    slots = len(space.slots)
    is_second = np.arange(slots) < rng.integers(0, slots + 1, (len(first), 1))
    return np.hstack([chosen, np.where(is_second, _spread_bits(space, second), _spread_bits(space, first))])


def neighbours(space: SearchSpace, genome: Genome) -> Genomes:
    """All genomes that differ from a canonical one in one gene that has an effect."""
    return single_changes(space, genome)[0]


def single_changes(space: SearchSpace, genome: Genome) -> tuple[Genomes, NDArray[np.intp]]:
    """The `neighbours` of a genome (N, G), and the gene that each of them changes (N,)."""
    start = genome[np.newaxis]
    if isinstance(space, MixedSpace):
        start = np.hstack([start[:, : _own_genes(space)], _spread_bits(space, start)])
    changes = [
        (gene, choice) for gene, n in enumerate(space.n_choices) for choice in range(n) if choice != start[0, gene]
    ]
    genes, choices = np.array(changes, dtype=np.intp).reshape(-1, 2).T
    changed = np.repeat(start, len(changes), axis=0)
    changed[np.arange(len(changes)), genes] = choices
    changed = space.canonical(changed)
    differs = (changed != genome).any(axis=1)
    return changed[differs], genes[differs]


def runs(space: SearchSpace, genome: Genome) -> Genomes:
    """All genomes that differ from a canonical one in the bits of a run of slots; none if a space has no bits."""
    if not isinstance(space, MixedSpace):
        return genome[np.newaxis][:0]
    own, slots = _own_genes(space), len(space.slots)
    ends = [(first, last, bits) for first in range(slots) for last in range(first + 1, slots + 1) for bits in (0, 1)]
    changed = np.repeat(genome[np.newaxis], len(ends), axis=0)
    for row, (first, last, bits) in zip(changed, ends, strict=True):
        row[own + first : own + last] = bits
    changed = np.unique(space.canonical(changed), axis=0)
    different: Genomes = changed[(changed != genome).any(axis=1)]
    return different


def _own_genes(space: SearchSpace) -> int:
    """The number of genes that are not bits; they come first."""
    return len(space.plain.genes) if isinstance(space, MixedSpace) else len(space.genes)


def _spread_bits(space: MixedSpace, genomes: Genomes) -> Genomes:
    """The bits of genomes (N, G), where an inactive slot has those of the slot before it (N, slots)."""
    bits = genomes[:, len(space.plain.genes) :].copy()
    for slot, activity in enumerate(space.activities[1:], start=1):
        bits[:, slot] = np.where(activity.of(genomes), bits[:, slot], bits[:, slot - 1])
    return bits
