"""What a predictor sees of an architecture: one-hot features of its active choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_profiler.spaces import Genomes, SearchSpace


@dataclass(frozen=True)
class Features:
    """One-hot, field by field: all blocks' choices of `fields[0]`, then of `fields[1]`, …, then the resolution.

    A block that is not active has all zeros, so depth needs no features of its own (Cai et al. 2020,
    appendix A). `resolutions` are those of the last features, in order.
    """

    fields: tuple[str, ...]
    resolutions: tuple[int, ...]

    @staticmethod
    def of(space: SearchSpace) -> Features:
        """Features of all choices of a space that draws from `space.resolutions`.

        A field all of whose genes switch blocks on and off is left out: which blocks are there says it all.
        """
        switches = {gene.switch for gene in space.genes}
        kept = [gene.name for i, gene in enumerate(space.genes) if i not in switches][1:]
        return Features(tuple(dict.fromkeys(name.rpartition(".")[2] for name in kept)), space.resolutions)

    def count(self, space: SearchSpace) -> int:
        """The number of features F of an architecture of `space`."""
        return sum(len(space.genes[g].choices) for g in self._genes(space)) + len(self.resolutions)

    def resolutions_of(self, space: SearchSpace) -> tuple[int, ...]:
        """The resolutions that both `space` can have and these features can express."""
        return tuple(r for r in self.resolutions if r in space.valid_resolutions)

    def _genes(self, space: SearchSpace) -> list[int]:
        return [i for field in self.fields for i, gene in enumerate(space.genes) if gene.name.endswith(f".{field}")]

    def ones(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.intp]:
        """Where the ones are: genomes (N, G) -> feature numbers (N, blocks x fields + 1).

        The number F stands for "no feature" (of a block that is not active). Raises `UsageError` when
        `space` has a resolution that these features cannot express.
        """
        return _columns(self, space).ones(genomes)


@dataclass(frozen=True, eq=False)
class _Columns:
    """The feature number of every choice of every gene that has features."""

    genes: NDArray[np.intp]
    switches: NDArray[np.intp]
    switch_from: NDArray[np.int8]
    first: NDArray[np.intp]  # the feature of each gene's choice 0; the others follow
    resolution: NDArray[np.intp]  # the feature of each of the space's resolutions
    none: int

    def ones(self, genomes: Genomes) -> NDArray[np.intp]:
        ones = np.empty((len(genomes), len(self.genes) + 1), dtype=np.intp)
        np.add(genomes[:, self.genes], self.first, out=ones[:, :-1])
        inactive = genomes[:, self.switches] < self.switch_from
        np.copyto(ones[:, :-1], self.none, where=inactive)
        ones[:, -1] = self.resolution[genomes[:, 0]]
        return ones


@lru_cache(maxsize=64)
def _columns(features: Features, space: SearchSpace) -> _Columns:
    genes = features._genes(space)
    sizes = [len(space.genes[g].choices) for g in genes]
    first = np.cumsum([0, *sizes])
    return _Columns(
        genes=np.array(genes, dtype=np.intp),
        # A gene without a switch is always active: any gene's index is at least 0.
        switches=np.array([space.genes[g].switch or 0 for g in genes], dtype=np.intp),
        switch_from=np.array([space.genes[g].switch_from for g in genes], dtype=np.int8),
        first=first[:-1],
        resolution=first[-1] + _positions(space.resolutions, features.resolutions),
        none=int(first[-1]) + len(features.resolutions),
    )


def _positions(wanted: Sequence[int], known: Sequence[int]) -> NDArray[np.intp]:
    for resolution in wanted:
        if resolution not in known:
            raise UsageError(
                f"the accuracy predictor does not know resolution {resolution}; it knows {', '.join(map(str, known))}"
            )
    return np.array([known.index(resolution) for resolution in wanted], dtype=np.intp)
