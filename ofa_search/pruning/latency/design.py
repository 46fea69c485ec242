"""Which networks are measured first: few, in which every slot has a grid of all combinations of a few levels.

An orthogonal array of strength 2 has each pair of levels of each pair of its columns once (Rao, 1947). For a prime p,
it has p * p rows and p + 1 columns of p levels. Genes of one slot get different columns, so the grid of a slot of two
genes is complete. Slots of three genes have all of their pairs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces.genes import Genomes
from ofa_search.pruning.latency.space import PruningSpace

#: Levels of a gene that are measured first: a prime.
DESIGN_LEVELS = 5


def design(space: PruningSpace, levels: int = DESIGN_LEVELS) -> Genomes:
    """The genomes (N, G) of the design, the whole network first, each once."""
    rows, columns = np.divmod(np.arange(levels * levels), levels), _columns(space, levels)
    values = [rows[0] if c == 0 else ((c - 1) * rows[0] + rows[1]) % levels for c in columns]
    genomes = [_spread(n, levels)[value] for n, value in zip(space.n_choices, values, strict=True)]
    every = np.stack([np.append(full, column) for full, column in zip(space.full, genomes, strict=True)], axis=1)
    return np.array(list(dict.fromkeys(map(tuple, every.tolist()))), dtype=np.int8)


def _spread(n_choices: int, levels: int) -> NDArray[np.int64]:
    return np.linspace(0, n_choices - 1, levels).round().astype(int)


def _columns(space: PruningSpace, levels: int) -> list[int]:
    """A column for each gene. Genes of one slot have different ones, as far as there are enough."""
    neighbours: list[set[int]] = [set() for _ in space.widths]
    for slot in space.slots:
        for gene in slot.genes:
            neighbours[gene] |= set(slot.genes) - {gene}
    columns = [-1] * len(neighbours)
    for gene in sorted(range(len(neighbours)), key=lambda g: (-len(neighbours[g]), g)):
        taken = [columns[other] for other in neighbours[gene]]
        columns[gene] = min(range(levels + 1), key=lambda c: (taken.count(c), columns.count(c), c))
    return columns


def networks_for_correction(cost: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The positions of `count` networks, evenly spread over their costs, the first one and the extremes among them."""
    order = np.argsort(cost, kind="stable")
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    return np.unique([0, *order[places]])
