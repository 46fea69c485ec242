"""A front as a table for other programs and as a picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ofa_profiler.base.files import replacing, write_text
from ofa_search.results.found import Found

FRONT = "front.csv"
PICTURE = "front.png"


def write_front(out: Path, found: Sequence[Found]) -> list[Path]:
    """Write `front.csv`, and `front.png` if matplotlib is installed. Raises `UsageError` if they cannot be written."""
    write_text(out / FRONT, csv_text([row_of(network) for network in found]))
    if find_spec("matplotlib") is None:
        return [out / FRONT]
    _draw(out / PICTURE, found)
    return [out / FRONT, out / PICTURE]


def row_of(network: Found) -> dict[str, Any]:
    """What a table of networks says of one; milliseconds are those of its first table."""
    result = network.result
    name = next(iter(result.budget_ms))
    return {
        "table": name,
        "budget_ms": result.budget_ms[name],
        "latency_ms": result.latency_ms[name],
        "measured_ms": (network.measured_latency_ms or {}).get(name),
        "predicted_accuracy": result.predicted_accuracy,
        "gap": result.gap,
        "macs": result.macs,
        "params": result.params,
        "resolution": result.architecture.resolution,
        "architecture": json.dumps(result.architecture.to_json(), separators=(",", ":")),
    }


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as CSV, with the names of the first as header; what is unknown is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _draw(path: Path, found: Sequence[Found]) -> None:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    rows = [row_of(network) for network in found]
    has_accuracy = rows[0]["predicted_accuracy"] is not None
    heights = [100 * row["predicted_accuracy"] if has_accuracy else row["macs"] / 1e6 for row in rows]
    figure = Figure(figsize=(6.4, 4.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    milliseconds = [row["latency_ms"] for row in rows]
    axes.plot(milliseconds, heights, color="0.75", linewidth=1, zorder=1)
    points = axes.scatter(milliseconds, heights, c=[row["resolution"] or 0 for row in rows], cmap="viridis", zorder=2)
    if len({row["resolution"] for row in rows}) > 1:
        figure.colorbar(points, ax=axes, label="resolution (pixels)")
    axes.set_xlabel(f"predicted latency on {rows[0]['table']} (ms)")
    axes.set_ylabel("predicted accuracy (%)" if has_accuracy else "million MACs")
    axes.set_title(found[0].result.architecture.space)
    axes.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
