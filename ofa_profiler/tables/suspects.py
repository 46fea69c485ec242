"""Rows that are much slower than similar ops, or faster than the device can be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.values import number
from ofa_profiler.tables.roofline import Peaks, row_work
from ofa_profiler.tables.row import OK, Row

#: `reason` of a suspect.
SLOW, FAST = "slow", "fast"
#: A row is slow if it takes so many times as long as its neighbours, of which it has so many.
_TIMES_SLOWER, _FEWEST_NEIGHBOURS = 5.0, 3
#: Ops of a kind are neighbours if neither their MACs nor their numbers (inputs, outputs, parameters) differ by more.
_LARGEST_RATIO = 2.0
#: A row is fast if it is so many times faster than the peaks allow. Real ops reach 0.8 of the MACs/s and 0.93 of the
#: bytes/s of the probes (`measuring/probes.py`), which are not the best that can be written for a device.
_TIMES_FASTER = 1.5


@dataclass(frozen=True)
class Suspect:
    """A doubtful row. `reason`: it is `SLOW` or `FAST`."""

    op: str
    reason: str
    ms: float
    #: If slow, the median of the neighbours: ops of its kind with about as many MACs and numbers to move. If fast, the
    #: time that it takes at the peaks of the device.
    expected_ms: float
    #: The number of neighbours; None if fast.
    neighbours: int | None = None
    #: What a second measurement, with the networks, gave; None if there is none.
    again_ms: float | None = None

    @property
    def factor(self) -> float:
        """How many times slower or faster than expected it is; at least 1."""
        return max(self.ms / self.expected_ms, self.expected_ms / self.ms)

    def to_json(self) -> dict[str, Any]:
        """Return an element of `suspects` in a table's JSON."""
        return asdict(self)


def find_suspects(
    rows: Sequence[Row], peaks: Peaks | None = None, again_ms: Mapping[str, float] | None = None, *, slow: bool = True
) -> list[Suspect]:
    """Return the suspicious rows, in their order. Ops whose layers are unknown are never suspicious.

    Without `peaks`, no row is too fast; without `slow`, none is too slow. `again_ms`: op -> the time of a second
    measurement.
    """
    slow_rows = _slow(rows) if slow else {}
    found = []
    for row in rows if slow or peaks is not None else ():
        suspect = slow_rows.get(id(row)) or _fast(row, peaks)
        if suspect is not None:
            op, reason, ms, expected_ms, neighbours = suspect
            found.append(Suspect(op, reason, ms, expected_ms, neighbours, (again_ms or {}).get(op)))
    return found


def suspects_of(rows: Sequence[Row], metadata: Mapping[str, Any], *, slow: bool = True) -> list[Suspect]:
    """Return the suspicious rows of a table. The metadata have the peaks and the times of second measurements."""
    return find_suspects(rows, Peaks.from_metadata(metadata), dict(_again_ms(metadata.get("suspects"))), slow=slow)


def _again_ms(suspects: object) -> Iterator[tuple[str, float]]:
    for suspect in suspects if isinstance(suspects, list) else []:
        if isinstance(suspect, Mapping) and (ms := number(suspect.get("again_ms"))) is not None:
            yield str(suspect.get("op")), ms


_Found = tuple[str, str, float, float, int | None]


def _slow(rows: Sequence[Row]) -> dict[int, _Found]:
    groups: dict[tuple[str, int | None], list[tuple[Row, float]]] = defaultdict(list)
    for row in rows:
        ms = row.median_ms or row.mean_ms
        if row.status == OK and ms:
            groups[row.description.kind, row.resolution].append((row, ms))
    found: dict[int, _Found] = {}
    for group in groups.values():
        fastest = min(ms for _, ms in group)
        if all(ms <= _TIMES_SLOWER * fastest for _, ms in group):  # sizes take a while
            continue
        known = [(row, ms, size) for row, ms in group if (size := _size(row.description)) is not None]
        times = np.array([ms for _, ms, _ in known])
        sizes = np.log([size for _, _, size in known])
        for i, (row, ms, _) in enumerate(known):
            if ms <= _TIMES_SLOWER * fastest:
                continue
            near = (np.abs(sizes - sizes[i]) <= np.log(_LARGEST_RATIO)).all(axis=1)
            near[i] = False
            count = int(near.sum())
            if count >= _FEWEST_NEIGHBOURS and ms > _TIMES_SLOWER * (usual := float(np.median(times[near]))):
                found[id(row)] = (row.op, SLOW, ms, usual, count)
    return found


def _fast(row: Row, peaks: Peaks | None) -> _Found | None:
    ms = row.median_ms or row.mean_ms
    work = row_work(row) if peaks is not None and row.status == OK and ms else None
    if peaks is None or work is None or not ms:
        return None
    least_ms = peaks.least_ms(work)
    return (row.op, FAST, ms, least_ms, None) if _TIMES_FASTER * ms < least_ms else None


def _size(op: Op) -> tuple[float, float] | None:
    """MACs, and numbers that the op reads and writes; None if the layers of its kind are unknown."""
    try:
        return max(1.0, op.macs), max(1.0, op.boundary + op.params)
    except UsageError:
        return None
