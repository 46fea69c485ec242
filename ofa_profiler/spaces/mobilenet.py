"""The base class of MobileNet-like spaces: a fixed stem, stages of inverted bottlenecks, and a head by subclass.

Each stage has a choice of depth. Each block has a choice of kernel size and expand ratio.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ofa_profiler.networks.blocks import MOBILENETV3, block_op, make_divisible
from ofa_profiler.networks.layers.conv import strided
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces.base import Preprocessing, SearchSpace, Slot
from ofa_profiler.spaces.genes import DEPTH, RESOLUTION, Gene, stage_genes

IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class MobileNetSpace(SearchSpace):
    """Stem, one fixed block, stages, head. Tuples with one entry per stage start with the first stage."""

    name: str
    n_classes: int
    preprocessing: Preprocessing
    resolutions: tuple[int, ...]
    valid_resolutions: tuple[int, ...]
    stem_stride: int
    stem_width: int
    stem_activation: str
    first_width: int
    first_activation: str
    stage_widths: tuple[int, ...]
    stage_strides: tuple[int, ...]
    stage_activations: tuple[str, ...]
    stage_se: tuple[bool, ...]
    family: str = MOBILENETV3
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    expand_ratios: tuple[int, ...] = (3, 4, 6)

    @property
    @abstractmethod
    def stage_depths(self) -> tuple[tuple[int, ...], ...]:
        """The possible depths of each stage, ascending."""

    @abstractmethod
    def _head_slots(self) -> tuple[Slot, ...]:
        """The slots after the stages."""

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        genes = [Gene(RESOLUTION, self.resolutions)]
        blocks = {"kernel_size": self.kernel_sizes, "expand_ratio": self.expand_ratios}
        for stage, depths in enumerate(self.stage_depths):
            genes += stage_genes(stage, len(genes), depths, blocks)
        return tuple(genes)

    # --- slots ---------------------------------------------------------------------------------------

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        return (*self._stem_slots(), *self._stage_slots(), *self._head_slots())

    def _size(self, resolution: int, stages: int) -> int:
        """Height and width of the feature map after the stem and the first `stages` stages."""
        return strided(resolution, self.stem_stride, *self.stage_strides[:stages])

    def _final_size(self, resolution: int) -> int:
        return self._size(resolution, len(self.stage_widths))

    def _stem_slots(self) -> tuple[Slot, ...]:
        def stem(resolution: int) -> Op:
            size = self._size(resolution, 0)
            return block_op(
                "stem",
                (resolution, resolution, 3),
                (size, size, self.stem_width),
                kernel_size=3,
                stride=self.stem_stride,
                activation=self.stem_activation,
                family=self.family,
            )

        def first_block(resolution: int) -> Op:
            size = self._size(resolution, 0)
            return block_op(
                "mbconv",
                (size, size, self.stem_width),
                (size, size, self.first_width),
                kernel_size=3,
                mid_channels=self.stem_width,
                skip=self.stem_width == self.first_width,
                activation=self.first_activation,
                family=self.family,
            )

        genes = (self.position(RESOLUTION),)
        return Slot("stem", genes, stem), Slot("first_block", genes, first_block)

    def _stage_slots(self) -> list[Slot]:
        slots = []
        for stage, depths in enumerate(self.stage_depths):
            shared = self.position(RESOLUTION), self.position(DEPTH, stage=stage)
            for block in range(max(depths)):
                own = (self.position(kind, stage=stage, block=block) for kind in ("kernel_size", "expand_ratio"))
                slots.append(Slot(f"stage{stage}_block{block}", (*shared, *own), self._block_builder(stage, block)))
        return slots

    def _block_builder(self, stage: int, block: int) -> Callable[..., Op | None]:
        width = self.stage_widths[stage]
        in_width = width if block else (self.first_width, *self.stage_widths)[stage]
        stride = 1 if block else self.stage_strides[stage]

        def build(resolution: int, depth: int, kernel_size: int, expand_ratio: int) -> Op | None:
            if block >= depth:
                return None
            out_size = self._size(resolution, stage + 1)
            in_size = out_size if block else self._size(resolution, stage)
            return block_op(
                "mbconv",
                (in_size, in_size, in_width),
                (out_size, out_size, width),
                kernel_size=kernel_size,
                mid_channels=make_divisible(in_width * expand_ratio),
                stride=stride,
                skip=stride == 1 and in_width == width,
                se=self.stage_se[stage],
                activation=self.stage_activations[stage],
                family=self.family,
            )

        return build
