"""Checks that the rows of a table belong together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ofa_profiler.base.user_code import is_module_name
from ofa_profiler.errors import InputFileError
from ofa_profiler.spaces import SearchSpace, get_space
from ofa_profiler.tables.row import FAILED, Row

#: Raises the error of a problem with a row.
Refuse = Callable[[str, Row], NoReturn]


def check_rows(rows: Sequence[Row], metadata: Mapping[str, Any], statistic: str, refuse: Refuse) -> None:
    """All rows have one batch and one precision, those of the metadata, and every row that did not fail has a time."""
    first = rows[0]
    for name, value in (("batch", first.batch), ("precision", first.precision)):
        described = metadata.get(name)
        if value and described is not None and described != value:
            refuse(
                f"column {name}: is {value}, but the JSON of the table says {described!r:.60}; "
                "they belong to different tables",
                first,
            )
    for row in rows:
        if (row.batch, row.precision) != (first.batch, first.precision):
            refuse("columns batch, precision: differ from the rows above; split the table", row)
        if row.status != FAILED and getattr(row, statistic) is None:
            refuse(f"column {statistic}: is empty, but the status is {row.status}", row)


def is_of_model(metadata: Mapping[str, Any]) -> bool:
    """Whether the rows of a table are blocks of a user's model, and not ops of a search space."""
    return isinstance(metadata.get("model"), Mapping)


def check_of_space(path: Path | str, metadata: Mapping[str, Any]) -> None:
    """Raise `InputFileError` for the table of a user's model, whose rows are no ops of networks of a search space."""
    if model := metadata.get("model"):
        file = model.get("file") if isinstance(model, Mapping) else None
        what = f"is the table of the model {file}" if file else "is the table of a user's model"
        raise InputFileError(path, f"{what}, not of a search space; make one by ofa-profile --space NAME")


def why_incomplete(rows: Sequence[Row], space: SearchSpace) -> tuple[str, str]:
    """Why ops of a space that was measured are missing, and what to do. A space of a user can have changed."""
    if is_module_name(space.name):
        whole = get_space(space.name)  # not only the choices that are searched
        known = {op.key for op in whole.unique_ops(whole.valid_resolutions)}
        if any(row.op not in known for row in rows):
            return (
                "the space has changed since it was measured",
                "measure it again: ofa-profile with another --name, or with --fresh",
            )
    return "rows were lost", "run ofa-profile again: it restores them from its journal"


def index_of(rows: Sequence[Row], refuse: Refuse) -> dict[tuple[int | None, str], Row]:
    """(resolution, key of the op) -> its row, of which there is one at most."""
    index: dict[tuple[int | None, str], Row] = {}
    for row in rows:
        first = index.get((row.resolution, row.op))
        if first is not None:
            where = f", first in row {first.line}" if first.line else ""
            refuse(f"column op: {row.op} is listed twice{where}", row)
        index[row.resolution, row.op] = row
    return index
