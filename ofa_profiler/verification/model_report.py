"""The report of a table of a user's model, NAME.html: where the time of the network goes, block by block.

It follows from CSV and JSON alone. The JSON has `model`, `whole_ms`, `sum_ms`, `whole` (statistics of the network's
samples), `runtime_profile` and, if changes were tried, `what_if`. Rows are blocks in order of execution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ofa_profiler.base.units import format_bytes, format_count
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.pages import charts
from ofa_profiler.pages.charts import Part, Points
from ofa_profiler.pages.page import Grid, Page, Section
from ofa_profiler.protocol.values import number
from ofa_profiler.tables.roofline import Peaks, Work
from ofa_profiler.tables.row import OK, Row
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.roofline import achieved, by_kind, roofline

#: How many blocks the tables of the report list, and how many changes.
LONGEST, CHANGES = 10, 3
#: Below this share of the roof, neither computing nor memory explains the time.
_EXPLAINED = 0.25
_LABEL = 22


def short_name(name: str, width: int = _LABEL) -> str:
    """The end of a path like `/features/features.3/conv/Conv`: it tells most. It starts at a `/` if it stays long.

    Of several names that a converter has joined by `;`, it is that of the first.
    """
    name = name.partition(";")[0] or name
    if len(name) <= width:
        return name
    end = name[1 - width :]
    slash = end.find("/")
    return f"…{end[slash:] if 0 <= slash <= width // 2 else end}"


def model_report(table: LatencyTable) -> Page:
    """The report of a table of a user's model."""
    blocks = [_Block(i, row) for i, row in enumerate(table.rows, 1)]
    measured = [block for block in blocks if block.row.status == OK and block.row.median_ms]
    model = table.metadata["model"]
    peaks = Peaks.from_metadata(table.metadata)
    sections = [
        *_longest(measured, peaks or _best(measured)),
        *_changes(table),
        *_where(measured),
        *_roofline(measured, peaks),
        *_disagreements(table, measured),
    ]
    return Page(f"Where the time of {_file_name(model)} goes", _facts(table, len(measured)), sections)


@dataclass(frozen=True)
class _Block:
    """A row with its place in the network, from 1."""

    place: int
    row: Row

    @property
    def ms(self) -> float:
        return self.row.median_ms or 0.0

    @property
    def kind(self) -> str:
        return self.row.description.kind

    @cached_property
    def label(self) -> str:
        return f"{self.place} {short_name(self.row.op)}"

    @cached_property
    def work(self) -> Work | None:
        """MACs and bytes as the table states them."""
        macs, n_bytes = (_stated(self.row, name) for name in ("macs", "bytes"))
        return Work(int(macs), int(n_bytes)) if macs is not None and n_bytes else None

    @property
    def runtime_ms(self) -> float | None:
        """What the runtime's own profile says."""
        return _stated(self.row, "runtime_ms")

    def hint(self, total: float) -> str:
        return f"{self.place}: {self.row.op} ({self.kind}), {self.ms:.4g} ms, {self.ms / total:.1%}"


def _stated(row: Row, name: str) -> float | None:
    """A column or an attribute of a block."""
    try:
        return float(row.extra.get(name) or row.description.attributes.get(name, ""))
    except ValueError:
        return None


def _file_name(model: Mapping[str, Any]) -> str:
    return str(model.get("file", "a model")).replace("\\", "/").rpartition("/")[2]


def _facts(table: LatencyTable, measured: int) -> dict[str, str]:
    metadata, model = table.metadata, table.metadata["model"]
    device = metadata.get("device")
    size, sha256 = number(model.get("bytes")), str(model.get("sha256") or "unknown")
    names = ("runtime", "runtime_version", "provider", "precision")
    settings = [str(metadata[name]) for name in names if metadata.get(name) is not None]
    if (threads := metadata.get("threads")) is not None:
        settings.append(f"{threads} thread{'' if threads == 1 else 's'}")
    facts = {
        "model": f"{_file_name(model)}{f', {format_bytes(int(size))}' if size else ''}, SHA-256 {sha256[:12]}",
        "device": str(device.get("model") if isinstance(device, Mapping) else None),
        "settings": ", ".join(settings),
        "measured": f"{metadata.get('date', 'date unknown')}, {measured} of {len(table.rows)} blocks",
        "whole network": _whole(metadata),
        "sum of the blocks": _sum(metadata),
        "profile of the runtime": _profile(metadata),
    }
    return {**facts, "notes": "; ".join(table.warnings) or "none"}


def _whole(metadata: Mapping[str, Any]) -> str:
    whole_ms, whole = number(metadata.get("whole_ms")), metadata.get("whole")
    if whole_ms is None:
        return "not measured"
    low, high = (number(whole.get(name)) if isinstance(whole, Mapping) else None for name in ("p10_ms", "p90_ms"))
    spread = f"; 80% of the runs took {low:.4g} to {high:.4g} ms" if low is not None and high is not None else ""
    return f"{whole_ms:.4g} ms{spread}"


def _sum(metadata: Mapping[str, Any]) -> str:
    whole_ms, sum_ms = (number(metadata.get(name)) for name in ("whole_ms", "sum_ms"))
    if sum_ms is None:
        return "unknown: not all blocks were measured"
    return f"{sum_ms:.4g} ms{f', {sum_ms / whole_ms:.1%} of the whole network' if whole_ms else ''}"


def _profile(metadata: Mapping[str, Any]) -> str:
    profile = metadata.get("runtime_profile")
    found = profile if isinstance(profile, Mapping) else {}
    sum_ms, named_ms = (number(found.get(name)) for name in ("sum_ms", "named_ms"))
    whole_ms = number(metadata.get("whole_ms"))
    if not sum_ms or named_ms is None:
        return "none"
    whole = f", {sum_ms / whole_ms:.1%} of the whole network" if whole_ms else ""
    return f"{sum_ms:.4g} ms in its kernels{whole}; {named_ms / sum_ms:.1%} of that is in blocks of this table"


def _where(blocks: Sequence[_Block]) -> Iterator[Section]:
    if not blocks:
        return
    total = sum(block.ms for block in blocks)
    yield Section(
        "By kind",
        "The area is the time. Tap a kind to enlarge it.",
        charts.treemap([Part(block.label, block.ms, block.kind, block.hint(total)) for block in blocks]),
    )
    yield Section(
        "Blocks in order of execution",
        f"Milliseconds of each block, measured alone; together {total:.4g} ms.",
        charts.bars([Part(block.label, block.ms, block.kind, block.hint(total)) for block in blocks], "ms"),
        n_rows=len(blocks),
    )


def _changes(table: LatencyTable) -> Iterator[Section]:
    found = table.metadata.get("what_if")
    changes = [change for change in found if isinstance(change, Mapping)] if isinstance(found, list | tuple) else []
    rows = [row for change in changes if (row := _change(change, number(table.metadata.get("whole_ms")))) is not None]
    if rows:
        yield Section(
            "Changes that would save most",
            "Each was made in the network and measured beside it. The network must be trained again after a change.",
            Grid(("change", "places", "saves", "of the network", "noise"), rows[:CHANGES]),
        )


def _change(change: Mapping[str, Any], whole_ms: float | None) -> tuple[str, ...] | None:
    saved, noise = number(change.get("saved_ms")), number(change.get("noise_ms"))
    if saved is None:
        return None
    places = change.get("places")
    count = len(places) if isinstance(places, list | tuple) else places
    # The network as it was measured beside the change.
    before_ms = number(change.get("before_ms")) or whole_ms
    share = f"{saved / before_ms:.1%}" if before_ms else "unknown"
    doubt = " (no more than the noise)" if noise is not None and saved <= noise else ""
    return (
        str(change.get("change")),
        str(count),
        f"{saved:.3g} ms{doubt}",
        share,
        f"± {noise:.2g} ms" if noise is not None else "unknown",
    )


def _roofline(blocks: Sequence[_Block], of_device: Peaks | None) -> Iterator[Section]:
    points = {b.row.op: point for b in blocks if (point := achieved(b.row, b.work)) is not None}
    if points:
        series = by_kind([block.row for block in blocks], points)
        yield roofline(of_device, series, Points("suspects", (), (), ()), what="block")


def _best(blocks: Sequence[_Block]) -> Peaks | None:
    """The most that blocks of the table achieved."""
    known = [(block.work, block.ms) for block in blocks if block.work is not None]
    gmacs = max((work.gmacs_per_s(ms) for work, ms in known), default=0.0)
    gbytes = max((work.gbytes_per_s(ms) for work, ms in known), default=0.0)
    return Peaks(gmacs, gbytes) if gmacs and gbytes else None


def _longest(blocks: Sequence[_Block], peaks: Peaks | None) -> Iterator[Section]:
    if not blocks:
        return
    total = sum(block.ms for block in blocks)
    longest = sorted(blocks, key=lambda block: -block.ms)[:LONGEST]
    rows = [
        (
            block.row.op,
            f"{block.ms:.4g}",
            f"{block.ms / total:.1%}",
            block.kind,
            f"{_shapes(block.row.description.inputs)} to {_shapes(block.row.description.outputs)}",
            *_speed(block, peaks),
        )
        for block in longest
    ]
    share = sum(block.ms for block in longest) / total
    columns = ("block", "ms", "share", "kind", "shapes", "MACs", "bytes", "GMAC/s", "limit")
    yield Section(
        f"The {len(longest)} longest blocks",
        f"They take {share:.0%} of the sum. The limit is what the time of the block follows from: computing, or moving "
        f"bytes; neither if both explain less than {_EXPLAINED:.0%} of it.",
        Grid(columns, rows),
    )


def _shapes(tensors: Sequence[TensorSpec]) -> str:
    shown = ["x".join(map(str, tensor.shape)) or "scalar" for tensor in tensors[:3]]
    return ", ".join([*shown, *(["…"] if len(tensors) > len(shown) else [])])


def _speed(block: _Block, peaks: Peaks | None) -> tuple[str, str, str, str]:
    work = block.work
    if work is None:
        return "unknown", "unknown", "unknown", "unknown"
    speed = f"{work.gmacs_per_s(block.ms):.3g}" if work.macs else "none"
    return format_count(work.macs), format_bytes(work.n_bytes), speed, _limit(work, block.ms, peaks)


def _limit(work: Work, ms: float, peaks: Peaks | None) -> str:
    """What bounds a block by the roofline model, and how near it is to the roof."""
    if peaks is None:
        return "unknown"
    computes = work.macs / peaks.gmacs_per_s >= work.n_bytes / peaks.gbytes_per_s
    share = peaks.least_ms(work) / ms
    name = "neither" if share < _EXPLAINED else "compute" if computes else "memory"
    return f"{name} ({share:.0%} of the roof)"


def _disagreements(table: LatencyTable, blocks: Sequence[_Block]) -> Iterator[Section]:
    known = [(block, ms) for block in blocks if (ms := block.runtime_ms) is not None]
    if not known or not isinstance(table.metadata.get("runtime_profile"), Mapping):
        return
    farthest = sorted(known, key=lambda pair: -abs(pair[1] - pair[0].ms))[:LONGEST]
    rows = [
        (block.row.op, f"{block.ms:.4g}", f"{ms:.4g}", f"{block.ms - ms:+.3g}", block.kind) for block, ms in farthest
    ]
    yield Section(
        "Where the runtime's profile differs most",
        "A block alone has its inputs in the caches, and calls the runtime once. The profile is of the whole network; "
        "writing it takes time, too.",
        Grid(("block", "measured alone (ms)", "in the profile (ms)", "difference (ms)", "kind"), rows),
    )
