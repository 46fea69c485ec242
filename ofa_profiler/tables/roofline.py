"""The work of ops, and the peaks of a device: with both, the time that an op takes at least.

This is the roofline model (Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009). Ops are measured in a loop, so
their data come from the caches: the roof for bytes is that of the caches, and the memory's is shown beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.target import BYTES_PER_NUMBER, DEFAULT_TARGET
from ofa_profiler.protocol.values import number
from ofa_profiler.tables.row import Row


@dataclass(frozen=True)
class Work:
    """MACs of one inference, and bytes: inputs, outputs and parameters, each moved once."""

    macs: int
    n_bytes: int

    def gmacs_per_s(self, ms: float) -> float:
        """Billion MACs per second, if it takes so many milliseconds."""
        return self.macs / ms / 1e6

    def gbytes_per_s(self, ms: float) -> float:
        """Billion bytes per second, if it takes so many milliseconds."""
        return self.n_bytes / ms / 1e6


def work_of(op: Op, batch: int, precision: str) -> Work | None:
    """The work of an op; None if the layers of its kind or the precision are unknown."""
    n_bytes = BYTES_PER_NUMBER.get(precision)
    if n_bytes is None:
        return None
    try:
        return Work(batch * op.macs, n_bytes * (batch * op.boundary + op.params))
    except UsageError:  # a kind of op that only another package knows
        return None


def row_work(row: Row) -> Work | None:
    """The work of the op of a row. Published tables name neither batch nor precision: batch 1, fp32."""
    return work_of(row.description, row.batch or 1, row.precision or DEFAULT_TARGET.precision)


@dataclass(frozen=True)
class Peaks:
    """The most that a device did: billions per second."""

    gmacs_per_s: float
    #: From the caches.
    gbytes_per_s: float
    #: From the memory behind them; None if unknown.
    memory_gbytes_per_s: float | None = None

    def least_ms(self, work: Work) -> float:
        """The time that the work takes at the peaks."""
        return max(work.macs / self.gmacs_per_s, work.n_bytes / self.gbytes_per_s) / 1e6

    @staticmethod
    def from_metadata(metadata: Mapping[str, Any]) -> Peaks | None:
        """The `peaks` of a table's JSON; None without usable ones."""
        found = metadata.get("peaks")
        if not isinstance(found, Mapping):
            return None
        macs, cache, memory = (number(found.get(f"{name}_per_s")) for name in ("gmacs", "gbytes", "memory_gbytes"))
        if not macs or not cache or min(macs, cache) <= 0:
            return None
        return Peaks(macs, cache, memory if memory and memory > 0 else None)
