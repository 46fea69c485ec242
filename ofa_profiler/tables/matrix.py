"""Tables of one device side by side: what each kind of op, and a network, gains from one table to another.

A gain is the milliseconds of an op in the base table, divided by those in another one. Ratios are averaged by their
geometric mean, so the gain from A to B is the inverse of that from B to A.

Tables of users' models (`whole_ms` in their metadata) have blocks instead of ops. Each runtime cuts a network into its
own blocks, so kinds are compared only within a runtime. Whole networks are compared across all tables, as measured.
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
from ofa_profiler.errors import OfaError, UsageError
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import SearchSpace, get_space, space_names
from ofa_profiler.spaces.sampling import draw_spread
from ofa_profiler.tables.consistency import is_of_model
from ofa_profiler.tables.row import OK
from ofa_profiler.tables.table import LatencyTable

#: The `kind` of a row about whole networks, and how many there are.
NETWORK = "network"
_NETWORKS = 100
#: The `kind` of the only row about a table that was not made. `reason` says why.
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class MatrixRow:
    """One kind of op in one table, or whole networks as the latency model of the table predicts them.

    `gain` is the geometric mean over the `compared` ops, those measured in both tables, and `gain_spread` the geometric
    standard deviation, a factor. Without such ops, they are None. A table that was not made has one row, of the kind
    `not measured`, with a `reason`; its `base` is empty.
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
    reason: str | None = None


_COLUMNS = [field.name for field in fields(MatrixRow)]
#: Of files of earlier versions.
_OLD_COLUMNS = _COLUMNS[:-1]


def compute_matrix(tables: Sequence[LatencyTable]) -> tuple[MatrixRow, ...]:
    """The rows of all kinds, a row per table, the whole networks last. They follow from the tables alone.

    The base is the first table in fp32, else the first table. For the blocks of models, it is that among the tables of
    the same runtime. An op counts where it was measured (`status` is ok).
    """
    bases = _bases(tables)
    times = {table.name: _times(table) for table in tables}
    kinds = dict.fromkeys(kind for of_table in times.values() for kind in of_table)
    rows = [
        _row(kind, table, base, times[table.name], times[base.name])
        for kind in kinds
        for table, base in zip(tables, bases, strict=True)
    ]
    base = _base(tables)
    networks = _wholes_ms(tables) or _networks_ms(tables, base)
    if networks:
        rows += [_row(NETWORK, table, base, networks[table.name], networks[base.name]) for table in tables]
    return tuple(rows)


def unmeasured_row(table: str, settings: Settings, error: OfaError) -> MatrixRow:
    """The row of a table that was not made, because of `error`."""
    target, reason = settings.target, " ".join(str(error).split())
    about = (target.runtime, target.precision, settings.threads)
    return MatrixRow(NOT_MEASURED, table, *about, count=0, median_ms=None, base="", compared=0, reason=reason)


def _base(tables: Sequence[LatencyTable]) -> LatencyTable:
    return next((table for table in tables if table.metadata.get("precision") == "fp32"), tables[0])


def _bases(tables: Sequence[LatencyTable]) -> list[LatencyTable]:
    """The base of each table, for its ops or blocks."""
    if not _wholes_ms(tables):
        return [_base(tables)] * len(tables)
    runtimes = [table.metadata.get("runtime") for table in tables]
    return [
        _base([other for other, its in zip(tables, runtimes, strict=True) if its == runtime]) for runtime in runtimes
    ]


def _wholes_ms(tables: Sequence[LatencyTable]) -> dict[str, dict[str, dict[str, float]]]:
    """Name of a table -> `NETWORK` -> milliseconds of the user's network; none for one that failed.

    Empty if the tables are not all of models.
    """
    if not all(is_of_model(table.metadata) for table in tables):
        return {}
    return {table.name: {NETWORK: _whole_ms(table.metadata.get("whole_ms"))} for table in tables}


def _whole_ms(value: object) -> dict[str, float]:
    return {"whole": float(value)} if isinstance(value, int | float) and np.isfinite(value) and value > 0 else {}


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


def _statistics(ratios: NDArray[np.float64]) -> dict[str, Any]:
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
        rows = list(reader) if reader.fieldnames in (_COLUMNS, _OLD_COLUMNS) else []
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
