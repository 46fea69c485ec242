"""What `ofa-profile --like` takes from the table of a similar device. The journal of the new device keeps it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.extension import LIKE
from ofa_profiler.protocol.values import number
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.tables.consistency import check_of_space
from ofa_profiler.tables.row import OK
from ofa_profiler.tables.table import LatencyTable

#: A base must have measured this share of the ops.
_FEWEST = 0.5
_DESCRIBED = ("runtime", "runtime_version", "provider", "precision", "threads", "batch", "date")


@dataclass(frozen=True)
class Base:
    """A table of a similar device: its name, what it was measured with, and the times of the ops of a space."""

    described: Mapping[str, Any]
    ops: tuple[Op, ...]
    #: Op -> milliseconds, for ops that the table has measured.
    ms: Mapping[str, float]

    @staticmethod
    def of(table: LatencyTable, space: SearchSpace) -> Base:
        """The times of `table` for `space` at its resolutions. Raises `UsageError` if it has too few of them."""
        check_of_space(table.path or table.name, table.metadata)
        times: dict[str, list[float]] = {}
        for row in table.rows:
            # An inferred time would hand on its error. Published tables have an op once per resolution.
            if row.status == OK:
                times.setdefault(row.op, []).append(float(getattr(row, table.statistic)))
        ops = space.unique_ops()
        ms = {op.key: statistics.median(times[op.key]) for op in ops if op.key in times}
        if len(ms) < _FEWEST * len(ops):
            at = ", ".join(map(str, space.resolutions))
            where = f"{space.name} at {at}" if at else space.name
            raise UsageError(
                f"--like {table.name}: it has measured {len(ms)} of the {len(ops)} ops of {where}, too few to infer "
                "the rest; give a table of this space and these resolutions, or choose them by --space and --resolution"
            )
        device = table.metadata.get("device")
        model = device.get("model") if isinstance(device, Mapping) else None
        facts = {name: table.metadata.get(name) for name in _DESCRIBED}
        return Base({"table": table.name, "device": model, **facts}, ops, ms)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types."""
        return {**self.described, "ops": [{"op": op.to_json(), "ms": self.ms.get(op.key)} for op in self.ops]}

    @staticmethod
    def from_json(data: Any) -> Base:
        """Read the result of `to_json`. Raises `ValueError`."""
        if not isinstance(data, Mapping) or not isinstance(data.get("ops"), list) or not data["ops"]:
            raise ValueError(f"{LIKE!r} must be an object with 'ops'")
        ms: dict[str, float] = {}
        ops = []
        for entry in data["ops"]:
            if not isinstance(entry, Mapping) or not {"op", "ms"} <= entry.keys():
                raise ValueError(f"{LIKE!r}: each of 'ops' must have 'op' and 'ms'")
            op = Op.from_json(entry["op"])
            if entry["ms"] is not None:
                milliseconds = number(entry["ms"])
                if milliseconds is None or milliseconds <= 0:
                    raise ValueError(f"{LIKE!r}: 'ms' of {op.key!r:.80} must be above zero")
                ms[op.key] = milliseconds
            ops.append(op)
        return Base({name: value for name, value in data.items() if name != "ops"}, tuple(ops), ms)
