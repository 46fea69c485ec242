"""Multi-head self-attention."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.networks.layers.base import SameShape, check_size
from ofa_profiler.networks.tensors import Shape


@dataclass(frozen=True)
class SelfAttention(SameShape):
    """Multi-head self-attention over a sequence (length, channels) (arXiv 1706.03762, section 3.2.2).

    Each head has channels / heads channels. Parameters: `qkv.weight` (3 channels, channels) and `qkv.bias`
    (3 channels) for queries, keys and values in this order; `out.weight` (channels, channels), `out.bias` (channels).
    """

    channels: int
    heads: int

    def parameter_shapes(self) -> dict[str, Shape]:
        channels = self.channels
        return {
            "qkv.weight": (3 * channels, channels),
            "qkv.bias": (3 * channels,),
            "out.weight": (channels, channels),
            "out.bias": (channels,),
        }

    def macs(self, *inputs: Shape) -> int:
        length, channels = inputs[0]
        return 4 * length * channels**2 + 2 * length**2 * channels

    def output_shape(self, *inputs: Shape) -> Shape:
        check_size(self, "channels", inputs[0][-1], self.channels)
        return inputs[0]
