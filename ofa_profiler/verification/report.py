"""The report of a table, NAME.html: how right its predictions are, and how its ops were measured.

It follows from the files of the table: CSV, JSON, and the journals as far as they are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ofa_profiler.errors import InputFileError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.pages import charts
from ofa_profiler.pages.charts import Points
from ofa_profiler.pages.page import Page, Section, write_page
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.steady import steady_times
from ofa_profiler.tables.consistency import is_of_model
from ofa_profiler.tables.corrections import Sum
from ofa_profiler.tables.roofline import Peaks, row_work
from ofa_profiler.tables.row import INFERRED, OK
from ofa_profiler.tables.suspects import Suspect, suspects_of
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.calibrate import drawn_networks, networks_journal, plain_sum, read_networks
from ofa_profiler.verification.model_report import model_report
from ofa_profiler.verification.networks import network_name
from ofa_profiler.verification.result import Subnet
from ofa_profiler.verification.roofline import Point, achieved, by_kind, roofline


@dataclass(frozen=True)
class _Networks:
    """Networks and what was measured of them."""

    name: str
    architectures: Sequence[Architecture]
    measured_ms: np.ndarray


def report_path(table: LatencyTable) -> Path:
    """NAME.html beside NAME.csv."""
    assert table.path is not None
    return table.path.with_suffix(".html")


def write_report(table: LatencyTable, verified: Sequence[Subnet] = ()) -> Path:
    """Write the report of a table that is a file -> its path. Raises `UsageError` without plotly."""
    path = report_path(table)
    write_page(model_report(table) if is_of_model(table.metadata) else report(table, verified), path)
    return path


def report(table: LatencyTable, verified: Sequence[Subnet] = ()) -> Page:
    """The report of a table that is a file. `verified` are networks that `ofa-verify` has measured now."""
    assert table.path is not None
    ops, journal = read_networks(table.path.with_suffix(".jsonl")), networks_journal(table.path)
    networks = read_networks(journal, ops.run.created if ops is not None else None)
    sets = [] if networks is None else list(_measured(networks, journal))
    if usable := [subnet for subnet in verified if subnet.measured_ms is not None]:
        measured_ms = np.array([subnet.measured_ms for subnet in usable], dtype=float)
        sets.append(_Networks("verified", [subnet.architecture for subnet in usable], measured_ms))
    sections = [*_of_networks(table, sets), *_of_ops(table)]
    sections += [_drift(replay, what) for replay, what in ((ops, "ops"), (networks, "networks")) if replay is not None]
    return Page(f"Latency table {table.name}", _facts(table), sections)


def _facts(table: LatencyTable) -> dict[str, str]:
    metadata, known = table.metadata, [row for row in table.rows if row.status == OK]
    device, validation = metadata.get("device"), metadata.get("validation")
    names = ("runtime", "runtime_version", "provider", "precision", "threads", "batch")
    facts = {
        "device": str(device.get("model") if isinstance(device, Mapping) else None),
        "settings": ", ".join(f"{name} {metadata[name]}" for name in names if metadata.get(name) is not None),
        "measured": f"{len(known)} of {len(table.rows)} ops, {metadata.get('date', 'date unknown')}{_inferred(table)}",
        "latency model": table.correction.method,
    }
    if isinstance(validation, Mapping):
        figures = {name: validation.get(name) for name in ("mape", "noise")}
        spelt = (f"{name} {value:.2%}" for name, value in figures.items() if isinstance(value, float))
        facts["validation"] = f"{validation.get('subnets')} networks: {', '.join(spelt)}"
    return {**facts, "notes": "; ".join(table.warnings) or "none"}


def _inferred(table: LatencyTable) -> str:
    count = sum(row.status == INFERRED for row in table.rows)
    return f"; {count} ops are inferred from table {table.metadata.get('like', {}).get('table')}" if count else ""


def _of_networks(table: LatencyTable, sets: Sequence[_Networks]) -> Iterator[Section]:
    if not sets:
        return
    title = "measured latency of the whole network (ms)"
    for model, words in ((plain_sum(table), "before calibration: the plain sum"), (table, "after calibration")):
        if model is table and table.correction.method == Sum.method:
            continue
        points = [
            Points(
                s.name,
                s.measured_ms.tolist(),
                model.predict_ms(s.architectures).tolist(),
                [network_name(a) for a in s.architectures],
            )
            for s in sets
        ]
        yield Section(
            f"Predicted against measured, {words}",
            "Each point is a network. The nearer to the solid line, the better; the dotted lines are 5% away.",
            charts.agreement(points, title, "predicted latency (ms)", band=0.05),
        )
    if unseen := [s for s in sets if s.name != "fitted"]:
        yield Section(
            "Error by resolution",
            "Networks that the latency model was not fitted to. Above 0, the prediction is too high.",
            charts.boxes(_errors(table, unseen), "resolution (pixels)", "(predicted - measured) / measured (%)"),
        )


def _measured(replay: Replay, journal: Path) -> Iterator[_Networks]:
    try:
        draw = drawn_networks(replay, journal)
    except InputFileError:  # not a journal of a calibration
        return
    found = replay.measurements()
    times = steady_times(found[name] for name in map(network_name, draw.all) if name in found)
    for name, architectures in (("fitted", draw.fitted), ("validated", draw.validated)):
        usable = [a for a in architectures if network_name(a) in times]
        if usable:
            yield _Networks(name, usable, np.array([times[network_name(a)].ms for a in usable]))


def _errors(table: LatencyTable, sets: Sequence[_Networks]) -> dict[str, list[float]]:
    errors: dict[int | None, list[float]] = {}
    for networks in sets:
        ratios = table.predict_ms(networks.architectures) / networks.measured_ms
        for architecture, ratio in zip(networks.architectures, ratios, strict=True):
            errors.setdefault(architecture.resolution, []).append(100 * (float(ratio) - 1))
    return {str(resolution): errors[resolution] for resolution in sorted(errors, key=lambda pixels: pixels or 0)}


def _of_ops(table: LatencyTable) -> Iterator[Section]:
    usable = [row for row in table.rows if row.status == OK and row.median_ms]
    suspects = {suspect.op: suspect for suspect in suspects_of(table.rows, table.metadata)}
    points = {row.op: point for row in usable if (point := achieved(row, row_work(row))) is not None}
    if points:
        yield roofline(Peaks.from_metadata(table.metadata), by_kind(usable, points), _marked(suspects, points))
    spreads = {
        row.op: (row.median_ms, 100 * (row.p90_ms - row.p10_ms) / row.median_ms, row.op)
        for row in usable
        if row.median_ms and row.p10_ms and row.p90_ms
    }
    if spreads:
        yield Section(
            "Spread of the samples",
            "How far the 10% and 90% quantiles of an op's samples are apart. Many ops above 10%: the device was busy.",
            charts.scatter(
                by_kind(usable, spreads),
                "median (ms)",
                "(p90 - p10) / median (%)",
                log_x=True,
                marked=_marked(suspects, spreads),
            ),
        )


def _marked(suspects: Mapping[str, Suspect], points: Mapping[str, Point]) -> Points:
    found = [
        (*points[op][:2], f"{op}: {suspect.factor:.1f} times too {suspect.reason}")
        for op, suspect in suspects.items()
        if op in points
    ]
    return Points("suspects", *(zip(*found, strict=True) if found else ((), (), ())))


def _drift(replay: Replay, what: str) -> Section:
    medians = {key: found.median_ms for key, found in replay.measurements().items() if found.ok}
    elapsed_s, points = 0.0, []
    for visit in replay.history:
        elapsed_s += visit.seconds
        if visit.key in medians and visit.ok:
            off = float(np.median(visit.samples_ns)) / 1e6 / medians[visit.key] - 1
            points.append((round(elapsed_s, 2), round(100 * off, 2), visit.key))
    series = Points("visits", *(zip(*points, strict=True) if points else ((), (), ())))
    return Section(
        f"Drift over time: {what}",
        f"Each point is a visit of one of the {what}, against the median of its samples. A slope or a step: the device "
        "changed. Single points can lie outside.",
        charts.over_time(series, "measuring time (s)", "off its median (%)"),
    )
