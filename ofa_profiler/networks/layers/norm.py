"""LayerNorm."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.networks.layers.base import SameShape, check_size
from ofa_profiler.networks.tensors import Shape


@dataclass(frozen=True)
class LayerNorm(SameShape):
    """Normalises each position over its channels, then scales and shifts it (arXiv 1607.06450).

    The input is a sequence (length, channels). Parameters: `weight` (channels), `bias` (channels).
    """

    channels: int
    epsilon: float = 1e-5

    def parameter_shapes(self) -> dict[str, Shape]:
        return {"weight": (self.channels,), "bias": (self.channels,)}

    def output_shape(self, *inputs: Shape) -> Shape:
        check_size(self, "channels", inputs[0][-1], self.channels)
        return inputs[0]
