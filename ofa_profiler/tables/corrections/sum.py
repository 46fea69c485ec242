"""The identity correction: the time of a network is the sum of the times of its ops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.tables.corrections.base import Correction, OpMs


@dataclass(frozen=True)
class Sum(Correction):
    """The sum of the measured times of the ops."""

    method: ClassVar[str] = "sum"

    def cost(self, space: SearchSpace, op_ms: OpMs) -> AdditiveCost:
        return AdditiveCost.from_ops_by_resolution(space, op_ms)
