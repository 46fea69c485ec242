"""What follows from choices, as small dense arrays over the choices on which it depends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.spaces.genes import Genomes


class Table(NamedTuple):
    """`values[i, j, ...]` if the genes at these positions have the indices i, j, ...; positions ascend."""

    genes: tuple[int, ...]
    values: NDArray[Any]

    @staticmethod
    def of(genes: Sequence[int], sizes: Sequence[int], value: Callable[[tuple[int, ...]], Any]) -> Table:
        """The table of `value(indices)` over these genes, which have so many choices."""
        values = np.array([value(index) for index in np.ndindex(*sizes)]).reshape(tuple(sizes))
        return Table(tuple(genes), values)

    @staticmethod
    def constant(value: Any) -> Table:
        """The table of what depends on nothing."""
        return Table((), np.array(value))

    def at(self, indices: dict[int, int]) -> Any:
        """The value for these indices of genes, of which there may be more."""
        return self.values[tuple(indices[gene] for gene in self.genes)]

    def of_genomes(self, genomes: Genomes) -> NDArray[Any]:
        """Genomes (N, G) -> the values (N,)."""
        found: NDArray[Any] = self.values[tuple(genomes[:, gene] for gene in self.genes)]
        return np.broadcast_to(found, len(genomes))

    def reduced(self) -> Table:
        """The same without the genes that change nothing."""
        genes, values = list(self.genes), self.values
        for axis in reversed(range(len(genes))):
            first = values.take([0], axis=axis)
            if (values == first).all():
                values = first.squeeze(axis)
                del genes[axis]
        return Table(tuple(genes), values)


def combinations(sizes: Sequence[int]) -> int:
    """How many entries a table over genes of these sizes has."""
    return prod(sizes)
