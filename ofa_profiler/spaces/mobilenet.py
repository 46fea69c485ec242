"""What MobileNet-like spaces share: a fixed stem, stages of inverted bottlenecks, and a head of their own.

Every stage chooses its depth, every block its kernel size and expand ratio.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture, Stage
from ofa_profiler.networks.blocks import MOBILENETV3, block_op, make_divisible
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces.base import (
    Gene,
    Preprocessing,
    SearchSpace,
    Slot,
    StageCode,
    check_choices,
    indices_of,
    strided,
)

IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class MobileNetSpace(SearchSpace):
    """Stem, one fixed block, stages, head. All tuples of stages are first to last."""

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
        """The depths that each stage may have, ascending."""

    @abstractmethod
    def _head_slots(self) -> tuple[Slot, ...]:
        """What comes after the stages."""

    # --- genes: resolution, then per stage its depth and per block (kernel size, expand ratio) ------

    @cached_property
    def _depth_genes(self) -> tuple[int, ...]:
        """Position of each stage's depth among the genes; those of its blocks follow."""
        positions = [1]
        for depths in self.stage_depths[:-1]:
            positions.append(positions[-1] + 1 + 2 * max(depths))
        return tuple(positions)

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        genes = [Gene("resolution", self.resolutions)]
        for stage, (switch, depths) in enumerate(zip(self._depth_genes, self.stage_depths, strict=True)):
            genes.append(Gene(f"stage{stage}.depth", depths))
            for block in range(max(depths)):
                switch_from = next(i for i, depth in enumerate(depths) if depth > block)
                for field, choices in (("kernel_size", self.kernel_sizes), ("expand_ratio", self.expand_ratios)):
                    genes.append(Gene(f"stage{stage}.block{block}.{field}", choices, switch, switch_from))
        return tuple(genes)

    @cached_property
    def codes(self) -> tuple[Mapping[Any, bytes], tuple[StageCode, ...]]:
        blocks = indices_of(self.kernel_sizes, self.expand_ratios)
        stages = []
        for depths in self.stage_depths:
            first = {(depth, None): bytes([i]) for i, depth in enumerate(depths)}
            stages.append(StageCode(first, blocks, {depth: bytes(2 * (max(depths) - depth)) for depth in depths}))
        return {(self.name, r, None): bytes([i]) for i, r in enumerate(self.resolutions)}, tuple(stages)

    def from_values(self, values: Sequence[float]) -> Architecture:
        stages = []
        for position in self._depth_genes:
            depth = int(values[position])
            choices = [int(value) for value in values[position + 1 : position + 1 + 2 * depth]]
            stages.append(Stage(tuple(choices[0::2]), tuple(choices[1::2])))
        return Architecture(self.name, int(values[0]), tuple(stages))

    # --- slots ---------------------------------------------------------------------------------------

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        return (*self._stem_slots(), *self._stage_slots(), *self._head_slots())

    def _size(self, resolution: int, stages: int) -> int:
        """Height (and width) of the feature map after the stem and the first `stages` stages."""
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

        return Slot("stem", (0,), stem), Slot("first_block", (0,), first_block)

    def _stage_slots(self) -> list[Slot]:
        slots = []
        for stage, (depth_gene, depths) in enumerate(zip(self._depth_genes, self.stage_depths, strict=True)):
            for block in range(max(depths)):
                kernel_gene = depth_gene + 1 + 2 * block
                genes = (0, depth_gene, kernel_gene, kernel_gene + 1)
                slots.append(Slot(f"stage{stage}_block{block}", genes, self._block_builder(stage, block)))
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

    # --- what is allowed -------------------------------------------------------------------------------

    def validate(self, architecture: Architecture) -> None:
        self._check_name(architecture)
        self._check_resolution(architecture.resolution)
        if architecture.stem is not None:
            raise UsageError(f"space {self.name} has no choice of a stem")
        self._check_stages(architecture, self.stage_depths)
        for i, stage in enumerate(architecture.stages):
            check_choices(f"stage {i}: kernel size", stage.kernel_sizes, self.kernel_sizes)
            check_choices(f"stage {i}: expand ratio", stage.expand_ratios, self.expand_ratios)
            if stage.width_mult is not None:
                raise UsageError(f"stage {i}: space {self.name} has no choice of a width")
