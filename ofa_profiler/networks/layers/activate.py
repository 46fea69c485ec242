"""An activation that follows no layer which could include it."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.networks.layers.activations import get_activation
from ofa_profiler.networks.layers.base import SameShape
from ofa_profiler.networks.tensors import Span


@dataclass(frozen=True)
class Activate(SameShape):
    """An activation alone."""

    activation: str

    def usual_spans(self, *inputs: Span) -> dict[str, Span]:
        return {"": get_activation(self.activation).spans(inputs[0])[""]}
