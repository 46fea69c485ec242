"""The grid as a latency table: a row per point, and in the JSON what is needed to use it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ofa_profiler.errors import InputFileError
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.target import Target
from ofa_profiler.tables.corrections import Sum
from ofa_profiler.tables.csv_file import save_files
from ofa_profiler.tables.row import FAILED, Row
from ofa_profiler.tables.table import LatencyTable
from ofa_search.pruning.groups import Dependencies
from ofa_search.pruning.latency.correction import Correction
from ofa_search.pruning.latency.grid import Grid, Point
from ofa_search.pruning.latency.space import Place, PruningSpace

#: What the JSON calls the part about pruning, and the file of the model, which is none.
PRUNING = "pruning"


def save_grid(grid: Grid, path: Path, metadata: Mapping[str, Any], target: Target) -> None:
    """Write `path` and the JSON beside it. `metadata` is that of the table, with what is known of the network."""
    rows = [_row(point, target) for point in grid.points.values()]
    measured, every = grid.n_points
    about = {
        **metadata[PRUNING],
        "places": [_place_json(place) for place in grid.space.places],
        "correction": grid.correction.to_json(),
        "points": {"measured": measured, "possible": every},
    }
    model = {"file": f"{path.stem} (pruned)"}
    save_files(path, rows, {**metadata, "model": model, PRUNING: about, "correction": Sum().to_json()})


def runtime_of(table: LatencyTable, asked: str | None) -> str:
    """The runtime of a table, which is also the one that is `asked` for, if any. Raises `InputFileError`."""
    found = table.metadata.get("runtime")
    if not isinstance(found, str):
        raise InputFileError(table.path or table.name, "does not say its runtime; make one by ofa-prune --device")
    if asked not in (None, found):
        raise InputFileError(
            table.path or table.name, f"was measured with {found}, not {asked}: a grid is for one runtime"
        )
    return found


def load_grid(path: Path, dependencies: Dependencies, fingerprint: str, runtime: str | None = None) -> Grid:
    """The grid in a table. Raises `InputFileError` if it is none, or that of another network or runtime."""
    table = LatencyTable.load(path)
    about, json = table.metadata.get(PRUNING), path.with_suffix(".json")
    if not isinstance(about, Mapping):
        raise InputFileError(path, "is not the table of a network to prune; make one by ofa-prune --device")
    if about.get("fingerprint") != fingerprint:
        raise InputFileError(json, "is of another network or input shape: its groups or layers differ")
    runtime_of(table, runtime)
    try:
        places = tuple(map(_place, about["places"]))
        correction = Correction.from_json(about["correction"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputFileError(json, f"'{PRUNING}' does not describe the slots of a network ({error})") from None
    space = PruningSpace.of(dependencies.groups, places)
    unit_channels = {group.name: group.unit_channels for group in dependencies.groups}
    return Grid(space, unit_channels, {row.op: _point(row, path) for row in table.rows}, correction)


def _row(point: Point, target: Target) -> Row:
    extra = {name: str(point.op.attributes[name]) for name in ("macs", "bytes", "kernels")}
    op = replace(point.op, attributes={})
    batch, precision = target.batch, target.precision
    if point.ms is None:
        row = Row.failed(op, batch=batch, precision=precision, error="it could not be measured")
    else:
        row = Row.from_op(op, batch=batch, precision=precision, samples_ms=[point.ms])
    return replace(row, extra=extra)


def _point(row: Row, path: Path) -> Point:
    try:
        attributes = {name: int(row.extra[name]) for name in ("macs", "bytes", "kernels")}
    except (KeyError, ValueError):
        raise InputFileError(path, "a row lacks macs, bytes or kernels", row=row.line) from None
    return Point(replace(row.description, attributes=attributes), row.median_ms if row.status != FAILED else None)


def _place_json(place: Place) -> dict[str, Any]:
    return {
        "name": place.name,
        "template": place.template,
        "groups": list(place.groups),
        "kind": place.kind,
        "inputs": [tensor.to_json() for tensor in place.inputs],
        "outputs": [tensor.to_json() for tensor in place.outputs],
    }


def _place(data: Any) -> Place:
    inputs, outputs = (tuple(map(TensorSpec.from_json, data[name])) for name in ("inputs", "outputs"))
    return Place(data["name"], data["template"], tuple(data["groups"]), data["kind"], inputs, outputs)
