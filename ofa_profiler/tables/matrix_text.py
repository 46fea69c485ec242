"""The comparison of tables for people, as lines of text.

Two or three tables are columns, with the range of each gain. More of them are lines, a column per kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ofa_profiler.tables.matrix import NETWORK, NOT_MEASURED, MatrixRow

_MOST_COLUMNS = 3
#: Kinds of ops that have a column where tables are lines. The file has all.
_MOST_KINDS = 6


def matrix_lines(rows: Sequence[MatrixRow], labels: Mapping[str, str]) -> list[str]:
    """A short table for people. `labels` are those of the tables by name; tables that were not made have their own."""
    made = [row for row in rows if row.kind != NOT_MEASURED]
    missing = {row.table: row.reason or "" for row in rows if row.kind == NOT_MEASURED}
    has_one_base = len({row.base for row in made}) == 1
    named = {name: label for name, label in labels.items() if name not in missing}
    as_columns = has_one_base and len(named) <= _MOST_COLUMNS
    lines = _as_columns(made, named) if as_columns else _as_lines(made, named)
    return [*lines, *(f"{labels.get(name, name)}: not measured: {reason}" for name, reason in missing.items())]


def _by_kind(rows: Sequence[MatrixRow]) -> dict[str, dict[str, MatrixRow]]:
    found: dict[str, dict[str, MatrixRow]] = {}
    for row in rows:
        found.setdefault(row.kind, {})[row.table] = row
    return found


def _as_lines(rows: Sequence[MatrixRow], labels: Mapping[str, str]) -> list[str]:
    """A line per table: the median of whole networks and the gain of each kind."""
    by_kind = _by_kind(rows)
    networks = by_kind.pop(NETWORK, {})
    compared = [
        kind
        for kind, of_table in by_kind.items()
        if any(row.gain for row in of_table.values() if row.table != row.base)
    ]
    kinds = sorted(compared, key=lambda kind: -max(map(_total_ms, by_kind[kind].values())))[:_MOST_KINDS]
    first = max(len("gain of"), *map(len, labels.values()))
    head = f"{'gain of':{first}}" + (f"{NETWORK + ' ms':>14}{NETWORK:>9}" if networks else "")
    lines = [head + "".join(f"{kind:>{_kind_width(kind)}}" for kind in kinds)]
    for name, label in labels.items():
        line = f"{label:{first}}"
        if networks:
            line += f"{_ms(networks[name]):>14}{_gain(networks[name].gain):>9}"
        lines.append(line + "".join(f"{_gain(by_kind[kind][name].gain):>{_kind_width(kind)}}" for kind in kinds))
    return lines


def _kind_width(kind: str) -> int:
    return max(7, len(kind)) + 2


def _total_ms(row: MatrixRow) -> float:
    return row.count * (row.median_ms or 0.0)


def _as_columns(rows: Sequence[MatrixRow], labels: Mapping[str, str]) -> list[str]:
    """A line per kind, a column per table."""
    by_kind = _by_kind(rows)
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
    gains = "".join(f"{_gain(gain):>7}" for gain in (row.gain, row.gain_min, row.gain_max))
    return f"{_ms(row):>{_width(label)}}" + ("" if row.table == row.base else gains)


def _ms(row: MatrixRow) -> str:
    return "-" if row.median_ms is None else f"{row.median_ms:.4g}"


def _gain(gain: float | None) -> str:
    return "-" if gain is None else f"{gain:.2f}x"
