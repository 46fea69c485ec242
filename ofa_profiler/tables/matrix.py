"""Tables of one device side by side: what each kind of op, and a network, gains from one table to another.

A gain is the milliseconds of an op in the base table, divided by those in another one. Ratios are averaged by their
geometric mean, so the gain from A to B is the inverse of that from B to A.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.base.files import write_text
from ofa_profiler.errors import UsageError
from ofa_profiler.spaces import SearchSpace, get_space, space_names
from ofa_profiler.spaces.sampling import draw_spread
from ofa_profiler.tables.row import OK
from ofa_profiler.tables.table import LatencyTable

#: The `kind` of a row about whole networks, and how many there are.
NETWORK = "network"
_NETWORKS = 100


@dataclass(frozen=True)
class MatrixRow:
    """One kind of op in one table, or whole networks as the latency model of the table predicts them.

    `gain` is the geometric mean over the `compared` ops, those measured in both tables, and `gain_spread` the geometric
    standard deviation, a factor. Without such ops, they are None.
    """

    kind: str
    table: str
    runtime: str | None
    precision: str | None
    threads: int | None
    count: int
    median_ms: float | None
    base: str
    compared: int
    gain: float | None = None
    gain_spread: float | None = None
    gain_min: float | None = None
    gain_max: float | None = None


_COLUMNS = [field.name for field in fields(MatrixRow)]


def compute_matrix(tables: Sequence[LatencyTable]) -> tuple[MatrixRow, ...]:
    """The rows of all kinds, a row per table, the whole networks last. They follow from the tables alone.

    The base is the first table in fp32, else the first table. An op counts where it was measured (`status` is ok).
    """
    base = next((table for table in tables if table.metadata.get("precision") == "fp32"), tables[0])
    times = {table.name: _times(table) for table in tables}
    kinds = dict.fromkeys(kind for of_table in times.values() for kind in of_table)
    networks = _networks_ms(tables, base)
    rows = [_row(kind, table, base, times[table.name], times[base.name]) for kind in kinds for table in tables]
    if networks:
        rows += [_row(NETWORK, table, base, networks[table.name], networks[base.name]) for table in tables]
    return tuple(rows)


_Times = Mapping[str, Mapping[str, float]]


def _times(table: LatencyTable) -> dict[str, dict[str, float]]:
    """Kind -> op -> milliseconds, of the ops that were measured."""
    found: dict[str, dict[str, float]] = {}
    for row in table.rows:
        ms = getattr(row, table.statistic)
        if row.status == OK and ms is not None:
            found.setdefault(row.description.kind, {})[row.op] = float(ms)
    return found


def _row(kind: str, table: LatencyTable, base: LatencyTable, times: _Times, base_times: _Times) -> MatrixRow:
    own, of_base = times.get(kind, {}), base_times.get(kind, {})
    ratios = np.array([of_base[key] / ms for key, ms in own.items() if key in of_base])
    said = table.metadata
    return MatrixRow(
        kind,
        table.name,
        said.get("runtime"),
        said.get("precision"),
        said.get("threads"),
        len(own),
        float(np.median(list(own.values()))) if own else None,
        base.name,
        len(ratios),
        **_statistics(ratios),
    )


def _statistics(ratios: NDArray[np.float64]) -> dict[str, float]:
    if not len(ratios):
        return {}
    logs = np.log(ratios)
    spread = float(np.exp(logs.std(ddof=1))) if len(logs) > 1 else 1.0
    extremes = {"gain_min": float(ratios.min()), "gain_max": float(ratios.max())}
    return {"gain": float(np.exp(logs.mean())), "gain_spread": spread, **extremes}


def _networks_ms(tables: Sequence[LatencyTable], base: LatencyTable) -> dict[str, dict[str, dict[str, float]]]:
    """Name of a table -> `NETWORK` -> number of a network -> its predicted milliseconds. Empty if there are none.

    The networks are spread over the range of the base, always the same ones.
    """
    for space in _common_spaces(tables):
        with suppress(UsageError):  # too few networks without failed ops
            drawn, _ = draw_spread(space, base.cost(space), _NETWORKS, np.random.default_rng(0))
            genomes = space.encode(drawn)
            predicted = {table.name: table.cost(space).evaluate(genomes) for table in tables}
            return {
                name: {NETWORK: {str(i): float(ms) for i, ms in enumerate(each) if np.isfinite(ms) and ms > 0}}
                for name, each in predicted.items()
            }
    return {}


def _common_spaces(tables: Sequence[LatencyTable]) -> Iterator[SearchSpace]:
    """Yield the spaces of all tables, at the resolutions that all have."""
    for name in tables[0].spaces:
        if name in space_names() and all(name in table.spaces for table in tables):
            space = get_space(name)
            common = set.intersection(*(set(table.resolutions(space)) for table in tables))
            if common:
                yield space.with_resolutions(sorted(common))


def save_matrix(rows: Sequence[MatrixRow], path: Path) -> None:
    """Write the rows as a CSV, completely or not at all. Raises `UsageError`.

    Rows of other tables in the file stay, such as those of another runtime, as long as the tables are beside it.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _shown(value) for name, value in asdict(row).items()} for row in rows)
    writer.writerows(_others(path, {row.table for row in rows}))
    write_text(path, text.getvalue())


def _others(path: Path, tables: Collection[str]) -> list[dict[str, str]]:
    """The rows in the file at `path` about other tables than these. There are none in a file of another kind."""
    try:
        reader = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        rows = list(reader) if reader.fieldnames == _COLUMNS else []
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    return [
        row
        for row in rows
        if None not in row.values()
        and None not in row
        and row["table"] not in tables
        and path.with_name(f"{row['table']}.csv").exists()
    ]


def _shown(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def matrix_lines(rows: Sequence[MatrixRow], labels: Mapping[str, str]) -> list[str]:
    """A short table for people: a line per kind, a column per table. `labels` are the headings by name of table."""
    by_kind: dict[str, dict[str, MatrixRow]] = {}
    for row in rows:
        by_kind.setdefault(row.kind, {})[row.table] = row
    head = "".join(
        f"{label + ' ms':>{_width(label)}}{'' if name == rows[0].base else _GAIN_HEAD}"
        for name, label in labels.items()
    )
    lines = [f"{'kind':16}{'count':>6}{head}"]
    for kind, of_table in by_kind.items():
        count = max(row.count for row in of_table.values())
        lines.append(f"{kind:16}{count:6}" + "".join(_cells(of_table[name], label) for name, label in labels.items()))
    return lines


_GAIN_HEAD = f"{'gain':>7}{'from':>7}{'to':>7}"


def _width(label: str) -> int:
    return max(11, len(label) + 5)


def _cells(row: MatrixRow, label: str) -> str:
    ms = "-" if row.median_ms is None else f"{row.median_ms:.4g}"
    gains = ["-" if gain is None else f"{gain:.2f}x" for gain in (row.gain, row.gain_min, row.gain_max)]
    return f"{ms:>{_width(label)}}" + ("" if row.table == row.base else "".join(f"{gain:>7}" for gain in gains))
