"""The inputs of a predictor: one-hot features of the active choices of an architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.genes import RESOLUTION


@dataclass(frozen=True)
class Features:
    """One-hot, kind by kind: all blocks' choices of `kinds[0]`, then of `kinds[1]`, …, then the resolution.

    A block that is not active has all zeros, so depth needs no features of its own (Cai et al. 2020, appendix A).
    `resolutions` are those of the last features, in order; none for spaces that have no such choice.
    """

    kinds: tuple[str, ...]
    resolutions: tuple[int, ...]

    @staticmethod
    def of(space: SearchSpace) -> Features:
        """Features of all choices of a space that draws from `space.resolutions`.

        A kind whose genes all switch blocks on and off is left out: the features of the blocks express it.
        """
        switches = {gene.switch for gene in space.genes}
        kept = [gene.kind for i, gene in enumerate(space.genes) if i not in switches and gene.kind != RESOLUTION]
        return Features(tuple(dict.fromkeys(kept)), space.resolutions)

    def count(self, space: SearchSpace) -> int:
        """The number of features F of an architecture of `space`."""
        whole = space.unrestricted
        return sum(len(whole.genes[g].choices) for g in self.genes(whole)) + len(self.resolutions)

    def resolutions_of(self, space: SearchSpace) -> tuple[int, ...]:
        """The resolutions that both `space` can have and these features can express."""
        return tuple(r for r in self.resolutions if r in space.valid_resolutions)

    def genes(self, space: SearchSpace) -> list[int]:
        """The positions of the genes that have features, in the order of the features."""
        return [i for kind in self.kinds for i, gene in enumerate(space.genes) if gene.kind == kind]

    def columns(self, space: SearchSpace) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The choices that have a feature, by their positions among all choices of all genes, and these features."""
        found, whole = _columns(self, space.unrestricted), space.unrestricted
        starts = np.cumsum([0, *space.n_choices])
        choices = [np.arange(starts[gene], starts[gene + 1]) for gene in found.genes]
        features = [
            first + np.array([whole.genes[gene].choices.index(choice) for choice in space.genes[gene].choices])
            for first, gene in zip(found.first, found.genes, strict=True)
        ]
        if found.resolution_gene is not None:
            choices.append(np.arange(starts[found.resolution_gene], starts[found.resolution_gene + 1]))
            features.append(found.resolution)
        return np.concatenate(choices), np.concatenate(features)

    def ones(self, space: SearchSpace, genomes: Genomes) -> NDArray[np.intp]:
        """Where the ones are: genomes (N, G) -> feature numbers (N, genes), then that of the resolution.

        The number F means "no feature" (of a block that is not active). Raises `UsageError` when `space` has a
        resolution that these features cannot express.
        """
        return _columns(self, space.unrestricted).ones(space.widened(genomes))


@dataclass(frozen=True, eq=False)
class _Columns:
    """The feature number of every choice of every gene that has features."""

    genes: NDArray[np.intp]
    switches: NDArray[np.intp]
    switch_from: NDArray[np.int8]
    first: NDArray[np.intp]  # the feature of each gene's choice 0; the others follow
    resolution_gene: int | None
    resolution: NDArray[np.intp]  # the feature of each of the space's resolutions
    none: int

    def ones(self, genomes: Genomes) -> NDArray[np.intp]:
        own = len(self.genes)
        ones = np.empty((len(genomes), own + (self.resolution_gene is not None)), dtype=np.intp)
        np.add(genomes[:, self.genes], self.first, out=ones[:, :own])
        inactive = genomes[:, self.switches] < self.switch_from
        np.copyto(ones[:, :own], self.none, where=inactive)
        if self.resolution_gene is not None:
            ones[:, own] = self.resolution[genomes[:, self.resolution_gene]]
        return ones


@lru_cache(maxsize=64)
def _columns(features: Features, space: SearchSpace) -> _Columns:
    genes = features.genes(space)
    sizes = [len(space.genes[g].choices) for g in genes]
    first = np.cumsum([0, *sizes])
    return _Columns(
        genes=np.array(genes, dtype=np.intp),
        # A gene without a switch is always active: the index of any gene is at least 0.
        switches=np.array([space.genes[g].switch or 0 for g in genes], dtype=np.intp),
        switch_from=np.array([space.genes[g].switch_from for g in genes], dtype=np.int8),
        first=first[:-1],
        resolution_gene=space.resolution_gene,
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
