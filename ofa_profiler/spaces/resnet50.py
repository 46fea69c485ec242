"""The ResNet50-D family, as published by the OFA authors.

The depth is elastic, and so is the width on two levels: the channels of a stage, and the channels inside each
bottleneck. The expand ratio is relative to the width of the stage. The stem has three convolutions (ResNet-D, arXiv
1812.01187). The second one is a residual block and optional.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from ofa_profiler.networks.blocks import RESNET, block_op, make_divisible
from ofa_profiler.networks.layers.conv import strided
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces.base import Preprocessing, SearchSpace, Slot
from ofa_profiler.spaces.genes import DEPTH, RESOLUTION, Gene, stage_genes
from ofa_profiler.spaces.mobilenet import IMAGENET


@dataclass(frozen=True, kw_only=True)
class ResNet50Space(SearchSpace):
    """Stem, max pooling, four stages of bottlenecks, pooling, classifier."""

    name: str
    n_classes: int
    preprocessing: Preprocessing
    resolutions: tuple[int, ...]
    valid_resolutions: tuple[int, ...]
    family: str = RESNET
    stem_width: int = 64
    stem_depths: tuple[int, ...] = (2, 3)
    stage_widths: tuple[int, ...] = (256, 512, 1024, 2048)
    stage_strides: tuple[int, ...] = (1, 2, 2, 2)
    stage_depths: tuple[tuple[int, ...], ...] = ((2, 3, 4), (2, 3, 4), (4, 5, 6), (2, 3, 4))
    expand_ratios: tuple[float, ...] = (0.2, 0.25, 0.35)
    width_mults: tuple[float, ...] = (0.65, 0.8, 1.0)
    kernel_size: int = 3

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        genes = [
            Gene(RESOLUTION, self.resolutions),
            Gene(DEPTH, self.stem_depths, stem=True),
            Gene("width_mult", self.width_mults, stem=True),
            Gene("last_width_mult", self.width_mults, stem=True),
        ]
        whole, blocks = {"width_mult": self.width_mults}, {"expand_ratio": self.expand_ratios}
        for stage, depths in enumerate(self.stage_depths):
            genes += stage_genes(stage, len(genes), depths, blocks, whole)
        return tuple(genes)

    @property
    def fixed(self) -> Mapping[str, float]:
        return {"kernel_size": self.kernel_size}

    # --- slots ---------------------------------------------------------------------------------------

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        return (*self._stem_slots(), *self._stage_slots(), *self._head_slots())

    def _stem_widths(self, width_mult: float) -> tuple[int, int]:
        """Channels inside and after a stem with this width."""
        last = make_divisible(self.stem_width * width_mult)
        return make_divisible(last // 2), last

    def _stage_width(self, stage: int, width_mult: float) -> int:
        return make_divisible(self.stage_widths[stage] * width_mult)

    def _size(self, resolution: int, stages: int) -> int:
        """Height and width of the feature map after stem, max pooling and the first `stages` stages."""
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

        at = self.position(RESOLUTION)
        depth, width, last_width = (self.position(kind, stem=True) for kind in (DEPTH, "width_mult", "last_width_mult"))
        return [
            Slot("stem0", (at, width), first),
            Slot("stem1", (at, depth, width), residual),
            Slot("stem2", (at, width, last_width), last),
            Slot("max_pool", (at, last_width), max_pool),
        ]

    def _stage_slots(self) -> list[Slot]:
        slots = []
        at, in_width = self.position(RESOLUTION), self.position("last_width_mult", stem=True)
        for stage, depths in enumerate(self.stage_depths):
            depth, width = self.position(DEPTH, stage=stage), self.position("width_mult", stage=stage)
            for block in range(max(depths)):
                # The first block is always active. Only its input has the width of the previous stage.
                switch = depth if block else in_width
                ratio = self.position("expand_ratio", stage=stage, block=block)
                builder = self._block_builder(stage, block)
                slots.append(Slot(f"stage{stage}_block{block}", (at, switch, width, ratio), builder))
            in_width = width
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
        at, width_gene = self.position(RESOLUTION), self.position("width_mult", stage=last)

        def pool(resolution: int, width_mult: float) -> Op:
            size, width = self._size(resolution, last + 1), self._stage_width(last, width_mult)
            return block_op("pool", (size, size, width), (1, 1, width))

        def classifier(width_mult: float) -> Op:
            return block_op("classifier", (1, 1, self._stage_width(last, width_mult)), (self.n_classes,))

        return Slot("pool", (at, width_gene), pool), Slot("classifier", (width_gene,), classifier)


OFA_RESNET50 = ResNet50Space(
    name="ofa-resnet50",
    n_classes=1000,
    preprocessing=IMAGENET,
    # The resolutions of the published accuracy predictor for this space.
    resolutions=(128, 144, 160, 176, 192, 224, 240, 256),
    valid_resolutions=tuple(range(128, 257, 4)),
)
