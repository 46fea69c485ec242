"""Latency tables as files: a CSV with one row per op, and a JSON beside it with device, settings and date.

Every cell is checked when a table is read. Messages name the file, the row and the column. The number of a row is its
line in the file, from 1.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ofa_profiler.base.files import replacing
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.tables.cells import (
    flag,
    integer,
    not_empty,
    one_of,
    optional,
    parse_spread_ms,
    parse_time_ms,
    shape,
    shown,
)
from ofa_profiler.tables.op_columns import op_of, op_values, other_attributes, parse_attributes
from ofa_profiler.tables.row import FAILED, INFERRED, OK, Row

#: Version of the CSV and JSON. Increase it for a change that old readers would misread.
FORMAT = 1

_COLUMNS: dict[str, Callable[[str], Any]] = {
    "op": str,
    "kind": not_empty,
    "input_shape": optional(shape),
    "output_shape": optional(shape),
    "kernel_size": optional(integer),
    "mid_channels": optional(integer),
    "stride": optional(integer),
    "skip": optional(flag),
    "se": optional(flag),
    "activation": str,
    "batch": optional(integer),
    "precision": str,
    "median_ms": optional(parse_time_ms),
    "mean_ms": optional(parse_time_ms),
    "std_ms": optional(parse_spread_ms),
    "p10_ms": optional(parse_time_ms),
    "p90_ms": optional(parse_time_ms),
    "samples": integer,
    "status": one_of(OK, FAILED, INFERRED),
}
_OPTIONAL_COLUMNS: dict[str, Callable[[str], Any]] = {
    "error": str,
    "resolution": optional(integer),
    "attributes": optional(parse_attributes),
}
#: The columns that describe the op.
_OP_COLUMNS = (*list(_COLUMNS)[:10], "attributes")
_TIMES = ("median_ms", "mean_ms", "std_ms", "p10_ms", "p90_ms")


def _format(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return repr(float(value)) if isinstance(value, float) else str(value)


# --- CSV ------------------------------------------------------------------------------------------------


def csv_text(rows: Sequence[Row]) -> str:
    """The table as CSV. Optional columns without any value are omitted."""
    columns = [*_COLUMNS, "error", *(["resolution"] if any(row.resolution for row in rows) else [])]
    attributes = [other_attributes(row.description) for row in rows]
    columns += ["attributes"] * any(attributes)
    extra = list(dict.fromkeys(name for row in rows for name in row.extra))
    lines = [_csv_line([*columns, *extra])]
    for row, more in zip(rows, attributes, strict=True):
        values = {**op_values(row.description), "attributes": more}
        ours = (_format(values[name] if name in values else getattr(row, name)) for name in columns)
        lines.append(_csv_line([*ours, *(row.extra.get(name, "") for name in extra)]))
    return "".join(lines)


def _csv_line(cells: Sequence[str]) -> str:
    """One line with `\\n` at its end. Python 3.10 quotes cells with `\\r` only if the line terminator contains it."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def read_text(path: Path) -> str:
    """The UTF-8 text of `path`. Raises `InputFileError` if it is missing, unreadable or not text."""
    try:
        content = path.read_bytes()
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputFileError(path, "is UTF-16, as spreadsheets save Unicode text; save it as CSV in UTF-8")
        text = content.decode("utf-8-sig")  # spreadsheets add a byte order mark
    except FileNotFoundError:
        raise InputFileError(path, "there is no such file") from None
    except OSError as error:
        raise InputFileError(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise InputFileError(path, "is not a text file (UTF-8)") from None
    if "\0" in text:
        raise InputFileError(path, "is not a text file (it contains zero bytes)")
    return text


def read_csv(path: Path) -> tuple[Row, ...]:
    """The rows of a latency table. Raises `InputFileError` with row and column."""
    return parse_csv(read_text(path), path)


def parse_csv(text: str, path: Path | str) -> tuple[Row, ...]:
    """The rows of a table as text. Raises `InputFileError`; `path` names the source in messages."""
    lines = _csv_lines(path, text)
    first, header = next(lines, (1, []))
    if not header:
        raise InputFileError(path, "is empty, not a latency table")
    missing = [name for name in _COLUMNS if name not in header]
    if missing and (other := _other_separator(header)):
        raise InputFileError(
            path,
            f"is separated by {other}, as spreadsheets save it in some languages, which may change numbers too; "
            "take the file that ofa-profile wrote, or save it with commas and decimal points",
            row=first,
        )
    if missing:
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise InputFileError(path, f"is not a latency table: it lacks the column {named}", row=first)
    for name in header:
        if header.count(name) > 1:
            raise InputFileError(path, f"has the column {shown(name)} twice", row=first)
    return tuple(_row(path, line, header, cells) for line, cells in lines)


def _other_separator(header: Sequence[str]) -> str:
    """The separator of a header that is not separated by commas, in words; empty if it is none."""
    text = ",".join(header)
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")):
        cells = [cell.strip(' "') for cell in text.split(separator)]
        if "op" in cells and "kind" in cells:
            return name
    return "semicolons or tabs" if text.lower().startswith("sep=") else ""


def _csv_lines(path: Path | str, text: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every line that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1  # a quoted cell can span lines; this is the first one
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputFileError(path, f"is not CSV: {error}", row=line) from None
        if cells is None:
            return
        if cells:
            yield line, [cell.strip() for cell in cells]


def _row(path: Path | str, line: int, header: Sequence[str], cells: Sequence[str]) -> Row:
    if len(cells) != len(header):
        raise InputFileError(path, f"has {len(cells)} cells, but the first line has {len(header)} columns", row=line)
    values: dict[str, Any] = {}
    extra: dict[str, str] = {}
    for name, cell in zip(header, cells, strict=True):
        parse = _COLUMNS.get(name) or _OPTIONAL_COLUMNS.get(name)
        if parse is None:
            extra[name] = cell
            continue
        try:
            values[name] = 0 if name == "samples" and not cell else parse(cell)
        except ValueError as error:
            raise InputFileError(path, f"column {name}: {error}", row=line) from None
    try:
        op = op_of(values)
    except ValueError as error:
        raise InputFileError(path, str(error), row=line) from None
    if op.key != values["op"]:
        raise InputFileError(path, _contradiction(values["op"], op.key), row=line)
    row = Row(description=op, **{k: v for k, v in values.items() if k not in _OP_COLUMNS}, extra=extra, line=line)
    _check(path, row)
    return row


def _contradiction(key: str, described: str) -> str:
    differences = [
        f"{in_key} in the key, {in_columns} in the columns"
        for in_key, in_columns in zip(key.split("-"), described.split("-"), strict=False)
        if in_key != in_columns
    ]
    return f"column op: {shown(key)} contradicts its own columns ({differences[0] if differences else described})"


def _check(path: Path | str, row: Row) -> None:
    """Check that the cells of a row are consistent. Raises `InputFileError`."""

    def refuse(problem: str) -> NoReturn:
        raise InputFileError(path, problem, row=row.line)

    times = [name for name in _TIMES if getattr(row, name) is not None]
    if row.status == FAILED and times:
        refuse(f"column {times[0]}: a failed row has no times")
    if row.status == OK and row.median_ms is None and row.mean_ms is None:
        refuse("column median_ms: is empty, but the status is ok")
    if row.status == OK and row.samples < 1:
        refuse(f"column samples: must be at least 1 if the status is {OK}")
    if row.status == INFERRED and (row.median_ms is None or row.samples):
        refuse(f"columns median_ms, samples: a row with the status {INFERRED} has a time and no samples")


# --- JSON -----------------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises `InputFileError`, also for NaN, infinity and repeated keys."""

    def no_constant(name: str) -> NoReturn:
        raise ValueError(f"it holds {name}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise ValueError(f"it holds {shown(key)} twice")
            result[key] = value
        return result

    try:
        return json.loads(read_text(path), parse_constant=no_constant, object_pairs_hook=unique)
    except ValueError as error:
        raise InputFileError(path, f"is not JSON: {error}") from None
    except RecursionError:
        raise InputFileError(path, "is nested too deeply") from None


def read_metadata(path: Path) -> dict[str, Any]:
    """The JSON beside a table. Raises `InputFileError`, also for the format of a later version."""
    metadata = read_json(path)
    if not isinstance(metadata, dict):
        raise InputFileError(path, "does not describe a latency table: it is not a JSON object")
    version = metadata.get("format")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise InputFileError(path, "does not describe a latency table: 'format' must be its version, a whole number")
    if version > FORMAT:
        raise InputFileError(path, f"has format {version}, but this version reads up to {FORMAT}; update ofa-profiler")
    return metadata


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """The JSON beside a table. It is ASCII, because the name of a device may contain invalid characters."""
    return json.dumps({**metadata, "format": FORMAT}, indent=2, allow_nan=False) + "\n"


def save_files(path: Path, rows: Sequence[Row], metadata: Mapping[str, Any]) -> None:
    """Write the CSV to `path` and `metadata` to the JSON beside it, both or none. Raises `UsageError`.

    The old JSON is removed before the new CSV is renamed. So an interruption can leave a table without JSON, for which
    readers warn, but never a table with the JSON of another table.
    """
    if path.suffix != ".csv":
        raise UsageError(f"cannot write {path}: the name of a latency table must end in .csv")
    table = csv_text(rows)
    description = metadata_text(metadata)
    json_path = path.with_suffix(".json")
    with replacing(json_path) as new_json:
        _write(new_json, description)
        with replacing(path) as new_csv:
            _write(new_csv, table)
            json_path.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    """Write and sync, so that a full disk is noticed before a file is replaced."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
