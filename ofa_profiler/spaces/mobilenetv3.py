"""The MobileNetV3 family: five elastic stages of inverted bottlenecks between a fixed stem and head.

The published spaces follow the OFA authors' code (arXiv 1908.09791, section 4.1); `cifar-mbv3` is
the same family for 32 x 32 images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ofa_profiler.architecture import Architecture, Stage
from ofa_profiler.errors import UsageError
from ofa_profiler.ops import Op, make_divisible
from ofa_profiler.spaces.base import Gene, Preprocessing, SearchSpace, Slot

IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CIFAR10 = Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


@dataclass(frozen=True)
class MobileNetV3Space(SearchSpace):
    """Stem, one fixed block, elastic stages, head. All tuples of stages are first to last."""

    name: str
    n_classes: int
    preprocessing: Preprocessing
    resolutions: tuple[int, ...]
    #: Every resolution that the supernet is trained for.
    valid_resolutions: tuple[int, ...]
    stem_stride: int
    stem_width: int
    first_width: int
    stage_widths: tuple[int, ...]
    stage_strides: tuple[int, ...]
    final_expand_width: int
    feature_mix_width: int
    stage_activations: tuple[str, ...] = ("relu", "relu", "h_swish", "h_swish", "h_swish")
    stage_se: tuple[bool, ...] = (False, True, False, True, True)
    depths: tuple[int, ...] = (2, 3, 4)
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    expand_ratios: tuple[int, ...] = (3, 4, 6)

    # --- genes: resolution, then per stage its depth and per block (kernel size, expand ratio) ------

    @property
    def _genes_per_stage(self) -> int:
        return 1 + 2 * max(self.depths)

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        genes = [Gene("resolution", self.resolutions)]
        for stage in range(len(self.stage_widths)):
            depth = len(genes)
            genes.append(Gene(f"stage{stage}.depth", self.depths))
            for block in range(max(self.depths)):
                switch_from = next(i for i, d in enumerate(self.depths) if d > block)
                for field, choices in (("kernel_size", self.kernel_sizes), ("expand_ratio", self.expand_ratios)):
                    genes.append(Gene(f"stage{stage}.block{block}.{field}", choices, depth, switch_from))
        return tuple(genes)

    def to_values(self, architecture: Architecture) -> list[int]:
        values = [architecture.resolution]
        for stage in architecture.stages:
            values.append(stage.depth)
            for block in range(max(self.depths)):
                active = block < stage.depth
                values.append(stage.kernel_sizes[block] if active else self.kernel_sizes[0])
                values.append(stage.expand_ratios[block] if active else self.expand_ratios[0])
        return values

    def from_values(self, values: Sequence[int]) -> Architecture:
        stages = []
        for start in range(1, len(values), self._genes_per_stage):
            depth, *choices = values[start : start + self._genes_per_stage]
            stages.append(Stage(tuple(choices[0 : 2 * depth : 2]), tuple(choices[1 : 2 * depth : 2])))
        return Architecture(self.name, values[0], tuple(stages))

    # --- slots ---------------------------------------------------------------------------------------

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        return (*self._stem_slots(), *self._stage_slots(), *self._head_slots())

    def _size(self, resolution: int, stages: int) -> int:
        """Height (and width) of the feature map after the stem and the first `stages` stages."""
        size = resolution
        for stride in (self.stem_stride, *self.stage_strides[:stages]):
            size = (size - 1) // stride + 1
        return size

    def _stem_slots(self) -> tuple[Slot, ...]:
        def stem(resolution: int) -> Op:
            size = self._size(resolution, 0)
            return Op(
                "stem",
                (resolution, resolution, 3),
                (size, size, self.stem_width),
                kernel_size=3,
                stride=self.stem_stride,
                activation="h_swish",
            )

        def first_block(resolution: int) -> Op:
            size = self._size(resolution, 0)
            return Op(
                "mbconv",
                (size, size, self.stem_width),
                (size, size, self.first_width),
                kernel_size=3,
                mid_channels=self.stem_width,
                skip=self.stem_width == self.first_width,
                activation="relu",
            )

        return Slot("stem", (0,), stem), Slot("first_block", (0,), first_block)

    def _stage_slots(self) -> list[Slot]:
        slots = []
        for stage in range(len(self.stage_widths)):
            first_gene = 1 + stage * self._genes_per_stage
            for block in range(max(self.depths)):
                kernel_gene = first_gene + 1 + 2 * block
                genes = (0, first_gene, kernel_gene, kernel_gene + 1)
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
            return Op(
                "mbconv",
                (in_size, in_size, in_width),
                (out_size, out_size, width),
                kernel_size=kernel_size,
                mid_channels=make_divisible(in_width * expand_ratio),
                stride=stride,
                skip=stride == 1 and in_width == width,
                se=self.stage_se[stage],
                activation=self.stage_activations[stage],
            )

        return build

    def _head_slots(self) -> tuple[Slot, ...]:
        width, expanded, mixed = self.stage_widths[-1], self.final_expand_width, self.feature_mix_width

        def final_expand(resolution: int) -> Op:
            size = self._size(resolution, len(self.stage_widths))
            return Op("final_expand", (size, size, width), (size, size, expanded), activation="h_swish")

        def pool(resolution: int) -> Op:
            size = self._size(resolution, len(self.stage_widths))
            return Op("pool", (size, size, expanded), (1, 1, expanded))

        def feature_mix() -> Op:
            return Op("feature_mix", (1, 1, expanded), (1, 1, mixed), activation="h_swish")

        def classifier() -> Op:
            return Op("classifier", (1, 1, mixed), (self.n_classes,))

        return (
            Slot("final_expand", (0,), final_expand),
            Slot("pool", (0,), pool),
            Slot("feature_mix", (), feature_mix),
            Slot("classifier", (), classifier),
        )

    # --- what is allowed -------------------------------------------------------------------------------

    def with_resolutions(self, resolutions: Sequence[int]) -> MobileNetV3Space:
        if not resolutions:
            raise UsageError(f"space {self.name}: no resolution given")
        for resolution in resolutions:
            self._check_resolution(resolution)
        return replace(self, resolutions=tuple(sorted(set(resolutions))))

    def with_classes(self, n_classes: int) -> MobileNetV3Space:
        return replace(self, n_classes=n_classes)

    def _check_resolution(self, resolution: int) -> None:
        if resolution not in self.valid_resolutions:
            raise UsageError(
                f"space {self.name} has no resolution {resolution}; it has {_spell_range(self.valid_resolutions)}"
            )

    def validate(self, architecture: Architecture) -> None:
        if architecture.space != self.name:
            raise UsageError(f"an architecture of space {architecture.space} was given where {self.name} is in use")
        self._check_resolution(architecture.resolution)
        if len(architecture.stages) != len(self.stage_widths):
            raise UsageError(
                f"space {self.name} has {len(self.stage_widths)} stages, the architecture {len(architecture.stages)}"
            )
        for i, stage in enumerate(architecture.stages):
            if stage.depth not in self.depths:
                raise UsageError(f"stage {i}: depth {stage.depth} is not one of {list(self.depths)}")
            if len(stage.expand_ratios) != stage.depth:
                raise UsageError(f"stage {i}: {stage.depth} kernel sizes but {len(stage.expand_ratios)} expand ratios")
            for kernel_size in stage.kernel_sizes:
                if kernel_size not in self.kernel_sizes:
                    raise UsageError(f"stage {i}: kernel size {kernel_size} is not one of {list(self.kernel_sizes)}")
            for expand_ratio in stage.expand_ratios:
                if expand_ratio not in self.expand_ratios:
                    raise UsageError(f"stage {i}: expand ratio {expand_ratio} is not one of {list(self.expand_ratios)}")


def _spell_range(values: tuple[int, ...]) -> str:
    if len(values) <= 5:
        return ", ".join(map(str, values))
    return f"{values[0]} to {values[-1]} in steps of {values[1] - values[0]}"


def _published(name: str, width_mult: float) -> MobileNetV3Space:
    stem, first, *stages, final_expand, feature_mix = (
        make_divisible(width * width_mult) for width in (16, 16, 24, 40, 80, 112, 160, 960, 1280)
    )
    return MobileNetV3Space(
        name=name,
        n_classes=1000,
        preprocessing=IMAGENET,
        resolutions=(160, 176, 192, 208, 224),
        valid_resolutions=tuple(range(128, 225, 4)),
        stem_stride=2,
        stem_width=stem,
        first_width=first,
        stage_widths=tuple(stages),
        stage_strides=(2, 2, 2, 1, 2),
        final_expand_width=final_expand,
        feature_mix_width=feature_mix,
    )


OFA_MBV3_W10 = _published("ofa-mbv3-w1.0", 1.0)
OFA_MBV3_W12 = _published("ofa-mbv3-w1.2", 1.2)

#: Ours, for 32 x 32 images: the stem keeps the resolution, the last stage works on 4 x 4. Narrow
#: enough that two CPU cores train the supernet in hours (the largest network has 38 M MACs).
CIFAR_MBV3 = MobileNetV3Space(
    name="cifar-mbv3",
    n_classes=10,
    preprocessing=CIFAR10,
    resolutions=(24, 28, 32),
    valid_resolutions=(24, 28, 32),
    stem_stride=1,
    stem_width=16,
    first_width=16,
    stage_widths=(16, 24, 40, 56, 80),
    stage_strides=(2, 2, 1, 1, 2),
    final_expand_width=480,
    feature_mix_width=512,
)
