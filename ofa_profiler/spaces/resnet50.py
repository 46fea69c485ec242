"""The ResNet50-D family, as the OFA authors published it: elastic depth, and elastic width on two levels,
the channels of a stage and, by the expand ratio, those inside its bottlenecks.

An expand ratio is a part of the stage's width here. The stem is three convolutions (ResNet-D,
arXiv 1812.01187), of which the second is a residual block that may be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture, Stage, Stem
from ofa_profiler.networks.blocks import block_op, make_divisible
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
from ofa_profiler.spaces.mobilenet import IMAGENET

#: Genes before those of the stages: resolution, depth and the two widths of the stem.
_STEM_DEPTH, _STEM_WIDTH, _LAST_STEM_WIDTH, _FIRST_STAGE = 1, 2, 3, 4


@dataclass(frozen=True, kw_only=True)
class ResNet50Space(SearchSpace):
    """Stem, max pooling, four stages of bottlenecks, pooling, classifier."""

    name: str
    n_classes: int
    preprocessing: Preprocessing
    resolutions: tuple[int, ...]
    valid_resolutions: tuple[int, ...]
    stem_width: int = 64
    stem_depths: tuple[int, ...] = (2, 3)
    stage_widths: tuple[int, ...] = (256, 512, 1024, 2048)
    stage_strides: tuple[int, ...] = (1, 2, 2, 2)
    stage_depths: tuple[tuple[int, ...], ...] = ((2, 3, 4), (2, 3, 4), (4, 5, 6), (2, 3, 4))
    expand_ratios: tuple[float, ...] = (0.2, 0.25, 0.35)
    width_mults: tuple[float, ...] = (0.65, 0.8, 1.0)
    kernel_size: int = 3

    # --- genes: resolution, stem, then per stage its depth, its width and per block its expand ratio ------

    @cached_property
    def _depth_genes(self) -> tuple[int, ...]:
        """Position of each stage's depth among the genes; its width and its blocks follow."""
        positions = [_FIRST_STAGE]
        for depths in self.stage_depths[:-1]:
            positions.append(positions[-1] + 2 + max(depths))
        return tuple(positions)

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        genes = [
            Gene("resolution", self.resolutions),
            Gene("stem.depth", self.stem_depths),
            Gene("stem.width_mult", self.width_mults),
            Gene("stem.last_width_mult", self.width_mults),
        ]
        for stage, (switch, depths) in enumerate(zip(self._depth_genes, self.stage_depths, strict=True)):
            genes += [Gene(f"stage{stage}.depth", depths), Gene(f"stage{stage}.width_mult", self.width_mults)]
            for block in range(max(depths)):
                switch_from = next(i for i, depth in enumerate(depths) if depth > block)
                genes.append(Gene(f"stage{stage}.block{block}.expand_ratio", self.expand_ratios, switch, switch_from))
        return tuple(genes)

    @cached_property
    def codes(self) -> tuple[Mapping[Any, bytes], tuple[StageCode, ...]]:
        stems = indices_of(self.resolutions, self.stem_depths, self.width_mults, self.width_mults)
        first = {(self.name, r, Stem(int(depth), (a, b))): indices for (r, depth, a, b), indices in stems.items()}
        blocks = {(self.kernel_size, ratio): bytes([i]) for i, ratio in enumerate(self.expand_ratios)}
        stages = (
            StageCode(
                indices_of(depths, self.width_mults), blocks, {depth: bytes(max(depths) - depth) for depth in depths}
            )
            for depths in self.stage_depths
        )
        return first, tuple(stages)

    def from_values(self, values: Sequence[float]) -> Architecture:
        stages = []
        for position in self._depth_genes:
            depth, width_mult = int(values[position]), values[position + 1]
            expand_ratios = tuple(values[position + 2 : position + 2 + depth])
            stages.append(Stage((self.kernel_size,) * depth, expand_ratios, width_mult))
        stem = Stem(int(values[_STEM_DEPTH]), (values[_STEM_WIDTH], values[_LAST_STEM_WIDTH]))
        return Architecture(self.name, int(values[0]), tuple(stages), stem)

    # --- slots ---------------------------------------------------------------------------------------

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        return (*self._stem_slots(), *self._stage_slots(), *self._head_slots())

    def _stem_widths(self, width_mult: float) -> tuple[int, int]:
        """Channels inside the stem and after it, if the whole stem had this width."""
        last = make_divisible(self.stem_width * width_mult)
        return make_divisible(last // 2), last

    def _stage_width(self, stage: int, width_mult: float) -> int:
        return make_divisible(self.stage_widths[stage] * width_mult)

    def _size(self, resolution: int, stages: int) -> int:
        """Height (and width) of the feature map after stem, max pooling and the first `stages` stages."""
        return strided(resolution, 2, 2, *self.stage_strides[:stages])

    def _stem_slots(self) -> list[Slot]:
        def conv(resolution: int, inputs: int, outputs: int, *, stride: int = 1, skip: bool = False) -> Op:
            size = strided(resolution, 2)
            in_size = resolution if stride == 2 else size
            shapes = (in_size, in_size, inputs), (size, size, outputs)
            return block_op("conv", *shapes, kernel_size=3, stride=stride, skip=skip, activation="relu")

        def first(resolution: int, width_mult: float) -> Op:
            return conv(resolution, 3, self._stem_widths(width_mult)[0], stride=2)

        def residual(resolution: int, depth: int, width_mult: float) -> Op | None:
            width = self._stem_widths(width_mult)[0]
            return conv(resolution, width, width, skip=True) if depth == max(self.stem_depths) else None

        def last(resolution: int, width_mult: float, last_width_mult: float) -> Op:
            return conv(resolution, self._stem_widths(width_mult)[0], self._stem_widths(last_width_mult)[1])

        def max_pool(resolution: int, last_width_mult: float) -> Op:
            width = self._stem_widths(last_width_mult)[1]
            before, after = strided(resolution, 2), self._size(resolution, 0)
            return block_op("max_pool", (before, before, width), (after, after, width), kernel_size=3, stride=2)

        return [
            Slot("stem0", (0, _STEM_WIDTH), first),
            Slot("stem1", (0, _STEM_DEPTH, _STEM_WIDTH), residual),
            Slot("stem2", (0, _STEM_WIDTH, _LAST_STEM_WIDTH), last),
            Slot("max_pool", (0, _LAST_STEM_WIDTH), max_pool),
        ]

    def _stage_slots(self) -> list[Slot]:
        slots = []
        in_width_gene = _LAST_STEM_WIDTH
        for stage, (depth_gene, depths) in enumerate(zip(self._depth_genes, self.stage_depths, strict=True)):
            width_gene = depth_gene + 1
            for block in range(max(depths)):
                # The first block is always there, and the only one that sees the width of the stage before.
                before = depth_gene if block else in_width_gene
                genes = (0, before, width_gene, width_gene + 1 + block)
                slots.append(Slot(f"stage{stage}_block{block}", genes, self._block_builder(stage, block)))
            in_width_gene = width_gene
        return slots

    def _block_builder(self, stage: int, block: int) -> Callable[..., Op | None]:
        stride = 1 if block else self.stage_strides[stage]

        def build(resolution: int, width: int, in_width: int, expand_ratio: float) -> Op:
            out_size = self._size(resolution, stage + 1)
            in_size = out_size if block else self._size(resolution, stage)
            return block_op(
                "bottleneck",
                (in_size, in_size, in_width),
                (out_size, out_size, width),
                kernel_size=self.kernel_size,
                mid_channels=make_divisible(round(width * expand_ratio)),
                stride=stride,
                skip=block > 0,
                activation="relu",
            )

        def first(resolution: int, in_width_mult: float, width_mult: float, expand_ratio: float) -> Op:
            in_width = self._stage_width(stage - 1, in_width_mult) if stage else self._stem_widths(in_width_mult)[1]
            return build(resolution, self._stage_width(stage, width_mult), in_width, expand_ratio)

        def later(resolution: int, depth: int, width_mult: float, expand_ratio: float) -> Op | None:
            width = self._stage_width(stage, width_mult)
            return build(resolution, width, width, expand_ratio) if block < depth else None

        return later if block else first

    def _head_slots(self) -> tuple[Slot, ...]:
        last = len(self.stage_widths) - 1
        width_gene = self._depth_genes[-1] + 1

        def pool(resolution: int, width_mult: float) -> Op:
            size, width = self._size(resolution, last + 1), self._stage_width(last, width_mult)
            return block_op("pool", (size, size, width), (1, 1, width))

        def classifier(width_mult: float) -> Op:
            return block_op("classifier", (1, 1, self._stage_width(last, width_mult)), (self.n_classes,))

        return Slot("pool", (0, width_gene), pool), Slot("classifier", (width_gene,), classifier)

    # --- what is allowed -------------------------------------------------------------------------------

    def validate(self, architecture: Architecture) -> None:
        self._check_name(architecture)
        self._check_resolution(architecture.resolution)
        if architecture.stem is None:
            raise UsageError(f"space {self.name} needs the architecture's 'stem'")
        check_choices("stem: depth", [architecture.stem.depth], self.stem_depths)
        check_choices("stem: width", architecture.stem.width_mults, self.width_mults)
        self._check_stages(architecture, self.stage_depths)
        for i, stage in enumerate(architecture.stages):
            check_choices(f"stage {i}: kernel size", stage.kernel_sizes, (self.kernel_size,))
            check_choices(f"stage {i}: expand ratio", stage.expand_ratios, self.expand_ratios)
            check_choices(f"stage {i}: width", [stage.width_mult], self.width_mults)


OFA_RESNET50 = ResNet50Space(
    name="ofa-resnet50",
    n_classes=1000,
    preprocessing=IMAGENET,
    # Those of the accuracy predictor that the authors published for this space.
    resolutions=(128, 144, 160, 176, 192, 224, 240, 256),
    valid_resolutions=tuple(range(128, 257, 4)),
)
