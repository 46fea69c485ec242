"""Some of the channels, or all in another order."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.layers.base import Layer, SameShape
from ofa_profiler.networks.tensors import Shape


@dataclass(frozen=True)
class ChannelSlice(Layer):
    """The channels from `start` to before `stop`."""

    start: int
    stop: int

    def output_shape(self, *inputs: Shape) -> Shape:
        if not 0 <= self.start < self.stop <= inputs[0][-1]:
            raise UsageError(f"layer {self.name} takes channels {self.start} to {self.stop} of {inputs[0][-1]}")
        return (*inputs[0][:-1], self.stop - self.start)


@dataclass(frozen=True)
class ChannelShuffle(SameShape):
    """The first channel of each group, then the second of each, and so on (ShuffleNet, arXiv 1707.01083)."""

    groups: int
