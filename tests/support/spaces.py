"""Small search spaces that are unlike those of the package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from ofa_profiler.networks import architecture
from ofa_profiler.networks.blocks import block_op
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces import Gene, Preprocessing, SearchSpace, Slot, register_space, registry
from ofa_profiler.spaces.genes import DEPTH, RESOLUTION, stage_genes

#: Kinds of choices of the stem.
STEM = ("depth", "width_mult", "last_width_mult")
PLAIN = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class SmallSpace(SearchSpace):
    """Stages of blocks, each with choices of its own, and a classifier. `places` is the order of the genes."""

    name: str = "small"
    family: str = "mobilenetv3"
    n_classes: int = 10
    preprocessing: Preprocessing = PLAIN
    resolutions: tuple[int, ...] = ()
    valid_resolutions: tuple[int, ...] = ()
    depths: tuple[tuple[int, ...], ...] = ((1, 2), (2, 3))
    kernel_sizes: tuple[int, ...] = (3, 5)
    expand_ratios: tuple[float, ...] = (1, 2)
    width_mults: tuple[float, ...] = ()
    stem: bool = False
    places: tuple[str, ...] = (RESOLUTION, "stem", "stages")

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        genes: list[Gene] = []
        for place in self.places:
            if place == RESOLUTION and self.resolutions:
                genes.append(Gene(RESOLUTION, self.resolutions))
            elif place == "stem" and self.stem:
                genes += [Gene(kind, (1, 2, 3), stem=True) for kind in STEM]
            elif place == "stages":
                for stage, depths in enumerate(self.depths):
                    kinds = {"kernel_size": self.kernel_sizes, "expand_ratio": self.expand_ratios}
                    blocks = {kind: choices for kind, choices in kinds.items() if len(choices) > 1}
                    whole = {"width_mult": self.width_mults} if self.width_mults else {}
                    genes += stage_genes(stage, len(genes), depths, blocks, whole)
        return tuple(genes)

    @property
    def fixed(self) -> Mapping[str, float]:
        kinds = {"kernel_size": self.kernel_sizes, "expand_ratio": self.expand_ratios}
        return {kind: choices[0] for kind, choices in kinds.items() if len(choices) == 1}

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        slots = []
        for stage, depths in enumerate(self.depths):
            for block in range(max(depths)):
                kinds = [gene.kind for gene in self.genes if (gene.stage, gene.block) == (stage, block)]
                genes = (
                    self.position(DEPTH, stage=stage),
                    *(self.position(k, stage=stage, block=block) for k in kinds),
                )

                def build(depth: int, *values: float, block: int = block) -> Op | None:
                    inside = {"mid_channels": round(8 * values[-1])} if values else {}
                    return block_op("mbconv", (4, 4, 8), (4, 4, 8), kernel_size=3, **inside) if block < depth else None

                slots.append(Slot(f"stage{stage}_block{block}", genes, build))
        return (*slots, Slot("classifier", (), lambda: block_op("classifier", (1, 1, 8), (self.n_classes,))))


@contextmanager
def registered(space: SearchSpace) -> Iterator[SearchSpace]:
    """The space, known by its name for a while."""
    register_space(space)
    try:
        yield space
    finally:
        for entries in (registry._SPACES._entries, architecture.SPACE_CHECKS._entries):
            del entries[space.name]
