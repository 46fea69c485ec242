"""Margins around a map."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.networks.layers.any_conv import Margins
from ofa_profiler.networks.layers.base import Layer
from ofa_profiler.networks.tensors import Shape, Span


@dataclass(frozen=True)
class Pad(Layer):
    """Margins of zeros around a map."""

    pads: Margins

    def output_shape(self, *inputs: Shape) -> Shape:
        height, width, channels = inputs[0]
        top, left, bottom, right = self.pads
        return (height + top + bottom, width + left + right, channels)

    def usual_spans(self, *inputs: Span) -> dict[str, Span]:
        return {"": inputs[0].with_zero()}
