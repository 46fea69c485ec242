"""How the times of isolated ops become the time of a whole network.

Every method adds up something per op, plus a constant, so that a corrected table is still an
`AdditiveCost`: evaluated by lookups, minimised exactly. The method and what was fitted for it are the
`correction` of a table's JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.op import Op


@dataclass(frozen=True)
class Correction:
    """`network_ms = constant_ms + sum of op_ms`. The method `sum` takes the ops as measured."""

    method: str = "sum"
    constant_ms: float = 0.0

    def op_ms(self, op: Op, measured_ms: float) -> float:  # noqa: ARG002 - later methods look at the op
        """What an op that took `measured_ms` alone adds to a network."""
        return measured_ms

    def to_json(self) -> dict[str, Any]:
        """The `correction` of a table's JSON."""
        return {"method": self.method}

    @staticmethod
    def from_json(data: Any) -> Correction:
        """Read what `to_json` gives. Raises `UsageError` for a method that this version does not know."""
        method = data.get("method") if isinstance(data, dict) else None
        if method != "sum":
            raise UsageError(f"'correction' has the unknown method {method!r}; this version knows 'sum'")
        return Correction()
