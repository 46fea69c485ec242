"""The roofline of a table as a section of its report: what its ops achieve, under the roof of the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ofa_profiler.pages import charts
from ofa_profiler.pages.charts import Points
from ofa_profiler.pages.page import Section
from ofa_profiler.tables.roofline import Peaks, Work
from ofa_profiler.tables.row import Row

#: x, y and the label of a point.
Point = tuple[float, float, str]


def by_kind(rows: Sequence[Row], points: Mapping[str, Point]) -> list[Points]:
    """The points of the rows, by the kind of their ops."""
    kinds: dict[str, list[Point]] = {}
    for row in rows:
        if row.op in points:
            kinds.setdefault(row.description.kind, []).append(points[row.op])
    return [Points(kind, *zip(*found, strict=True)) for kind, found in kinds.items()]


def achieved(row: Row, work: Work | None) -> Point | None:
    """MACs per byte, and GMAC/s of an op; None if it has no MACs, or if they are unknown."""
    if work is None or not work.macs or not work.n_bytes or not row.median_ms:
        return None
    gmacs, gbytes = work.gmacs_per_s(row.median_ms), work.gbytes_per_s(row.median_ms)
    label = f"{row.op}: {row.median_ms:.3g} ms, {gmacs:.3g} GMAC/s, {gbytes:.3g} GB/s"
    return work.macs / work.n_bytes, gmacs, label


def roofline(peaks: Peaks | None, series: Sequence[Points], marked: Points, *, what: str = "op") -> Section:
    """The chart. `peaks` are those of the device; without, the best points are the roof. `what` a point is."""
    whose = "peaks of the device, with data in its caches"
    if peaks is None:
        every = [(x, y) for points in series for x, y in zip(points.x, points.y, strict=True)]
        peaks, whose = Peaks(max(y for _, y in every), max(y / x for x, y in every)), f"best {what}s"
    slopes, memory = {"roof": peaks.gbytes_per_s}, ""
    if peaks.memory_gbytes_per_s is not None:
        slopes["roof of the memory"] = peaks.memory_gbytes_per_s
        memory = f" (dotted: from the memory, {peaks.memory_gbytes_per_s:.3g} GB/s)"
    rings = " Red rings: suspicious ops." if len(marked.x) else ""
    return Section(
        "Roofline",
        f"Each point is {'an' if what[0] in 'aeiou' else 'a'} {what}. The roof is that of the {whose}: "
        f"{peaks.gmacs_per_s:.3g} GMAC/s and {peaks.gbytes_per_s:.3g} GB/s{memory}. "
        f"{what.capitalize()}s far below it waste time.{rings}",
        charts.roofline(series, peaks.gmacs_per_s, slopes, "MACs per byte", "GMAC/s", marked=marked),
    )
