"""The ProxylessNAS family (arXiv 1812.00332), as published by the OFA authors.

It has the blocks of MobileNetV2, with ReLU6 and without squeeze-excite. Five stages are elastic. The sixth stage
always has one block.
"""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.networks.blocks import PROXYLESS, block_op, make_divisible
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces.base import Slot
from ofa_profiler.spaces.genes import RESOLUTION
from ofa_profiler.spaces.mobilenet import IMAGENET, MobileNetSpace


@dataclass(frozen=True, kw_only=True)
class ProxylessSpace(MobileNetSpace):
    """Six stages. The head has one convolution and the classifier, which includes the pooling."""

    feature_mix_width: int
    family: str = PROXYLESS
    stem_activation: str = "relu6"
    first_activation: str = "relu6"
    stage_activations: tuple[str, ...] = ("relu6",) * 6
    stage_se: tuple[bool, ...] = (False,) * 6
    stage_depths: tuple[tuple[int, ...], ...] = (*((2, 3, 4),) * 5, (1,))

    def _head_slots(self) -> tuple[Slot, ...]:
        width, mixed = self.stage_widths[-1], self.feature_mix_width

        # The published tables name this convolution like the expansion of MobileNetV3. The classifier includes the
        # pooling.
        def feature_mix(resolution: int) -> Op:
            size = self._final_size(resolution)
            return block_op(
                "final_expand", (size, size, width), (size, size, mixed), family=self.family, activation="relu6"
            )

        def classifier(resolution: int) -> Op:
            size = self._final_size(resolution)
            return block_op("classifier", (size, size, mixed), (self.n_classes,))

        resolution = (self.position(RESOLUTION),)
        return Slot("feature_mix", resolution, feature_mix), Slot("classifier", resolution, classifier)


def _published(name: str, width_mult: float) -> ProxylessSpace:
    stem, first, *stages, feature_mix = (
        make_divisible(width * width_mult) for width in (32, 16, 24, 40, 80, 96, 192, 320, 1280)
    )
    return ProxylessSpace(
        name=name,
        n_classes=1000,
        preprocessing=IMAGENET,
        resolutions=(160, 176, 192, 208, 224),
        valid_resolutions=tuple(range(128, 225, 4)),
        stem_stride=2,
        stem_width=stem,
        first_width=first,
        stage_widths=tuple(stages),
        stage_strides=(2, 2, 2, 1, 2, 1),
        feature_mix_width=feature_mix,
    )


OFA_PROXYLESS_W13 = _published("ofa-proxyless-w1.3", 1.3)
