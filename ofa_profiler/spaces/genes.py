"""Genes: the open choices of a search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

#: Rows of gene indices, (N, G).
Genomes = NDArray[np.int8]

#: Kinds of genes with a meaning for every space. The space defines the meaning of all others.
RESOLUTION, DEPTH, BITS = "resolution", "depth", "bits"


@dataclass(frozen=True)
class Gene:
    """One choice of the network, its stem, a stage, a block of a stage, or a slot.

    It has an effect only if the gene at position `switch` has at least the index `switch_from`, or if `switch` is None.
    """

    kind: str
    choices: tuple[float, ...]
    _: KW_ONLY
    stem: bool = False
    stage: int | None = None
    block: int | None = None
    slot: str | None = None
    switch: int | None = None
    switch_from: int = 0

    @property
    def name(self) -> str:
        """Position and kind: `resolution`, `stem.depth`, `stage0.depth`, `stage0.block1.kernel_size`, `stem.bits`."""
        stage = None if self.stage is None else f"stage{self.stage}"
        block = None if self.block is None else f"block{self.block}"
        return ".".join(filter(None, ("stem" if self.stem else None, stage, block, self.slot, self.kind)))


def stage_genes(
    stage: int,
    switch: int,
    depths: Sequence[int],
    blocks: Mapping[str, Sequence[float]],
    whole: Mapping[str, Sequence[float]] | None = None,
) -> list[Gene]:
    """The genes of a stage: its depth, the choices of the `whole` stage, then the choices of each block.

    `blocks` and `whole` map kinds to choices. `switch` is the position of the depth among the genes of the space.
    """
    genes = [Gene(DEPTH, tuple(depths), stage=stage)]
    genes += [Gene(kind, tuple(choices), stage=stage) for kind, choices in (whole or {}).items()]
    for block in range(max(depths)):
        switch_from = next(i for i, depth in enumerate(depths) if depth > block)
        for kind, choices in blocks.items():
            gene = Gene(kind, tuple(choices), stage=stage, block=block, switch=switch, switch_from=switch_from)
            genes.append(gene)
    return genes
