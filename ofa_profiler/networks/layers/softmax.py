"""Softmax."""

from __future__ import annotations

from dataclasses import dataclass

from ofa_profiler.networks.layers.base import SameShape
from ofa_profiler.networks.tensors import Span


@dataclass(frozen=True)
class Softmax(SameShape):
    """The softmax of a vector."""

    def usual_spans(self, *inputs: Span) -> dict[str, Span]:  # noqa: ARG002
        return {"": Span(0.0, 1.0)}
