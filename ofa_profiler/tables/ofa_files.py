"""The tables of the OFA authors: a folder with one `NNN_lookup_table.yaml` (or `.json`) per resolution.

Each file maps the key of an op to `count`, `mean` and `std` of its times in milliseconds. There is no median, so these
tables predict by the mean, like the code of the authors. An op that several resolutions share was measured once per
resolution. Its row belongs to the resolution of its file (`Row.resolution`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ofa_profiler.base.files import write_text
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.blocks import MOBILENETV3, PROXYLESS, block_op
from ofa_profiler.networks.ofa_keys import is_proxyless, parse_key
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.tables.cells import parse_count, parse_spread_ms, parse_time_ms, shown
from ofa_profiler.tables.csv_file import read_json, read_text
from ofa_profiler.tables.published_entries import FIELDS, NO_TABLE, Entry
from ofa_profiler.tables.row import INFERRED, OK, Row

_FILE = re.compile(r"([1-9][0-9]{0,4})_lookup_table\.(?:yaml|yml|json)")


def parse_op(key: str, *, family: str = MOBILENETV3) -> Op:
    """The op of a published key in a table of this family. Raises `ValueError` if it is not a key."""
    fields = parse_key(key, family=family)
    if fields is not None:
        op = block_op(**fields)
        # If the keys differ, `key` lacks a part or has an extra one.
        if op.key == key:
            return op
    raise ValueError(f"{shown(key)} is not the key of an op")


# --- reading --------------------------------------------------------------------------------------------


def read_published(folder: Path) -> tuple[Row, ...]:
    """The rows of all files in a folder. Raises `InputFileError` with file and row or key."""
    rows: list[Row] = []
    for resolution, path in sorted(_lookup_files(folder).items()):
        entries = list(_json_entries(path)) if path.suffix == ".json" else _yaml_entries(path)
        family = PROXYLESS if any(is_proxyless(key) for key, _, _ in entries) else MOBILENETV3
        seen: dict[str, int | None] = {}
        for key, entry, line in entries:
            if key in seen:
                raise InputFileError(path, f"{shown(key)} is listed twice, first in row {seen[key]}", row=line)
            seen[key] = line
            rows.append(_row(path, resolution, key, entry, line, family))
        if not seen:
            raise InputFileError(path, "contains no op")
    return tuple(rows)


def _lookup_files(folder: Path) -> dict[int, Path]:
    """Resolution -> file, for a folder."""
    files: dict[int, Path] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputFileError(folder, f"cannot be read: {error.strerror or error}") from error
    for path in paths:
        match = _FILE.fullmatch(path.name)
        if match and files.setdefault(int(match[1]), path) != path:
            raise InputFileError(
                path, f"is a second table for resolution {match[1]}; remove it or {files[int(match[1])].name}"
            )
    if not files:
        tables = sorted(path.name for path in folder.glob("*.csv"))
        hint = f"; give {' or '.join(tables[:3])} in it" if tables else ""
        raise InputFileError(folder, f"contains no published tables, such as 224_lookup_table.yaml or .json{hint}")
    return files


#: A line with the key of an op, and a line with one of its fields, as the authors' files have them.
_KEY = re.compile(r"([A-Za-z][\w:.,-]*):")
_FIELD = re.compile(r"  (count|mean|std): ([0-9][0-9.eE+-]*)")


def _yaml_entries(path: Path) -> list[Entry]:
    """The entries of a YAML file, in order. Raises `InputFileError`."""
    text = read_text(path)
    entries = _plain_entries(text)
    if entries is not None:
        return entries
    from ofa_profiler.tables.yaml_entries import yaml_entries  # yaml is slow to import

    return list(yaml_entries(path, text))


def _plain_entries(text: str) -> list[Entry] | None:
    """The entries of a file that has only lines as the authors write them; None for any other YAML."""
    entries: list[Entry] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if field := _FIELD.fullmatch(line):
            if not entries or field[1] in entries[-1][1]:
                return None
            entries[-1][1][field[1]] = field[2]
        elif (key := _KEY.fullmatch(line)) and (not entries or entries[-1][1]):
            entries.append((key[1], {}, number))
        else:
            return None
    return entries if entries and entries[-1][1] else None


def _json_entries(path: Path) -> Iterator[Entry]:
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputFileError(path, NO_TABLE)
    for key, entry in document.items():
        if not isinstance(entry, dict):
            raise InputFileError(path, f"{shown(key)} must be followed by {FIELDS}")
        yield key, {name: repr(value) for name, value in entry.items()}, None


def _row(path: Path, resolution: int, key: str, entry: dict[str, str], line: int | None, family: str) -> Row:
    values: dict[str, Any] = {}
    try:
        op = parse_op(key, family=family)
        for name, parse in (("count", parse_count), ("mean", parse_time_ms), ("std", parse_spread_ms)):
            if name not in entry:
                raise ValueError(f"{key}: lacks {name!r}")
            try:
                values[name] = parse(entry[name])
            except ValueError as error:
                raise ValueError(f"{key}: {name}: {error}") from None
    except ValueError as error:
        raise InputFileError(path, str(error), row=line) from None
    return Row(
        description=op,
        batch=None,
        precision="",
        median_ms=None,
        mean_ms=values["mean"],
        std_ms=values["std"],
        p10_ms=None,
        p90_ms=None,
        samples=values["count"],
        status=OK,
        resolution=resolution,
        line=line,
    )


# --- writing --------------------------------------------------------------------------------------------


def write_published(name: str, rows: Iterable[Row], covered: Mapping[SearchSpace, Iterable[int]], folder: Path) -> None:
    """Write the rows of the table `name`, one YAML file per resolution. Raises `UsageError`.

    `covered` maps spaces to the resolutions that the table covers. See `LatencyTable.save_published`.
    """
    ops: dict[int, list[Op]] = {}
    for space, resolutions in covered.items():
        for resolution in resolutions:
            ops.setdefault(resolution, []).extend(space.unique_ops([resolution]))
    if folder.is_dir() and any(_FILE.fullmatch(path.name) for path in folder.iterdir()):
        raise UsageError(f"cannot write {folder}: it already contains published tables; choose another folder")
    found = _rows_by_resolution(name, rows, ops)
    texts = {resolution: _yaml_text(name, entries) for resolution, entries in found.items()}
    written: list[Path] = []
    try:
        for resolution, text in texts.items():
            path = folder / f"{resolution}_lookup_table.yaml"
            write_text(path, text)
            written.append(path)
    except UsageError:
        for path in written:  # a part of the resolutions would look like a complete table
            path.unlink(missing_ok=True)
        raise


def _rows_by_resolution(name: str, rows: Iterable[Row], ops: Mapping[int, Iterable[Op]]) -> dict[int, dict[str, Row]]:
    files: dict[int, dict[str, Row]] = {}
    shared: dict[str, Row] = {}
    for row in rows:
        entries = shared if row.resolution is None else files.setdefault(row.resolution, {})
        entries[row.op] = row
    placed = set()
    for resolution, needed in ops.items():
        for op in needed:
            entries = files.get(resolution, {})
            if op.key in shared and op.key not in entries:
                files.setdefault(resolution, {})[op.key] = shared[op.key]
                placed.add(op.key)
    if shared.keys() - placed:
        raise UsageError(
            f"table {name} cannot be written as published tables: op {min(shared.keys() - placed)} belongs to no "
            "resolution of a known space that the table covers"
        )
    return files


def _yaml_text(name: str, rows: dict[str, Row]) -> str:
    entries = {}
    for key, row in rows.items():
        if row.status == INFERRED:
            raise UsageError(f"table {name} cannot be written as published tables: op {key} was inferred, not measured")
        if row.mean_ms is None or row.std_ms is None:
            raise UsageError(f"table {name} cannot be written as published tables: op {key} lacks a mean or spread")
        entries[key] = {"count": row.samples, "mean": row.mean_ms, "std": row.std_ms}
    import yaml  # slow to import

    return str(yaml.safe_dump(entries))
