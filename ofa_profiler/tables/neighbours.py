"""Rows that are much slower than similar ops."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.tables.row import OK, Row

#: A row is suspicious if it takes so many times as long as its neighbours, of which it has so many.
_TIMES_SLOWER, _FEWEST_NEIGHBOURS = 5.0, 3
#: Ops of a kind are neighbours if neither their MACs nor their numbers (inputs, outputs, parameters) differ by more.
_LARGEST_RATIO = 2.0


@dataclass(frozen=True)
class Suspect:
    """An op that is much slower than its neighbours: ops of its kind with about as many MACs and numbers to move."""

    op: str
    ms: float
    #: The median of the neighbours, and their number.
    neighbours_ms: float
    neighbours: int

    def to_json(self) -> dict[str, Any]:
        """Return an element of `suspects` in a table's JSON."""
        return asdict(self)


def find_suspects(rows: Sequence[Row]) -> list[Suspect]:
    """Return the suspicious rows, in their order. Ops whose layers are unknown are never suspicious."""
    groups: dict[tuple[str, int | None], list[tuple[Row, float, tuple[float, float]]]] = defaultdict(list)
    for row in rows:
        ms = row.median_ms or row.mean_ms
        size = _size(row.description)
        if row.status == OK and ms and size is not None:
            groups[row.description.kind, row.resolution].append((row, ms, size))
    found = {}
    for group in groups.values():
        times = np.array([ms for _, ms, _ in group])
        sizes = np.log([size for _, _, size in group])
        for i, (row, ms, _) in enumerate(group):
            near = (np.abs(sizes - sizes[i]) <= np.log(_LARGEST_RATIO)).all(axis=1)
            near[i] = False
            count = int(near.sum())
            if count >= _FEWEST_NEIGHBOURS and ms > _TIMES_SLOWER * (usual := float(np.median(times[near]))):
                found[id(row)] = Suspect(row.op, ms, usual, count)
    return [found[id(row)] for row in rows if id(row) in found]


def _size(op: Op) -> tuple[float, float] | None:
    """MACs, and numbers that the op reads and writes; None if the layers of its kind are unknown."""
    try:
        return max(1.0, op.macs), max(1.0, op.boundary + op.params)
    except UsageError:
        return None
