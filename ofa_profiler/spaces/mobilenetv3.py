"""The MobileNetV3 family: squeeze-excite and hard-swish in later stages, and a head that pools early.

The published spaces follow the code of the OFA authors (arXiv 1908.09791, section 4.1). `cifar-mbv3` belongs to the
same family and is for 32 x 32 images.
"""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.networks.blocks import block_op, make_divisible
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces.base import Preprocessing, Slot
from ofa_profiler.spaces.genes import RESOLUTION
from ofa_profiler.spaces.mobilenet import IMAGENET, MobileNetSpace

CIFAR10 = Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


@dataclass(frozen=True, kw_only=True)
class MobileNetV3Space(MobileNetSpace):
    """Stages with the same choice of depths. The head has expansion, pooling, a hidden layer and the classifier."""

    final_expand_width: int
    feature_mix_width: int
    stem_activation: str = "h_swish"
    first_activation: str = "relu"
    stage_activations: tuple[str, ...] = ("relu", "relu", "h_swish", "h_swish", "h_swish")
    stage_se: tuple[bool, ...] = (False, True, False, True, True)
    depths: tuple[int, ...] = (2, 3, 4)

    @property
    def stage_depths(self) -> tuple[tuple[int, ...], ...]:
        return (self.depths,) * len(self.stage_widths)

    def _head_slots(self) -> tuple[Slot, ...]:
        width, expanded, mixed = self.stage_widths[-1], self.final_expand_width, self.feature_mix_width

        def final_expand(resolution: int) -> Op:
            size = self._final_size(resolution)
            return block_op("final_expand", (size, size, width), (size, size, expanded), activation="h_swish")

        def pool(resolution: int) -> Op:
            size = self._final_size(resolution)
            return block_op("pool", (size, size, expanded), (1, 1, expanded))

        def feature_mix() -> Op:
            return block_op("feature_mix", (1, 1, expanded), (1, 1, mixed), activation="h_swish")

        def classifier() -> Op:
            return block_op("classifier", (1, 1, mixed), (self.n_classes,))

        resolution = (self.position(RESOLUTION),)
        return (
            Slot("final_expand", resolution, final_expand),
            Slot("pool", resolution, pool),
            Slot("feature_mix", (), feature_mix),
            Slot("classifier", (), classifier),
        )


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

#: This project's space for 32 x 32 images. The stem keeps the resolution, and the last stage works on 4 x 4 maps. Its
#: largest network has 41 M MACs, so two CPU cores train the supernet in hours.
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
