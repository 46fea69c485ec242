"""Labelled images in parquet files, as Hugging Face's `datasets` and pandas write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import InputFileError, UsageError
from ofa_search.data.pointers import what_instead
from ofa_search.data.source import PORTION, Encoded, Part, Source, stamp

_IMAGE_COLUMNS = ("img", "image", "images")
_LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
_MOST_CLASSES = 1 << 20
_EMBED = (
    "embed the image files where they are: Dataset.map with datasets.table.embed_table_storage, or push_to_hub "
    "(embed_external_files=True), or give a folder with one folder per class"
)


@dataclass(frozen=True, eq=False)
class ParquetSource(Source):
    """Column `image_column` holds the bytes of image files, or structs with `bytes`."""

    files: tuple[Path, ...]
    image_column: str

    def identity(self) -> list[Any]:
        return [[file.name, *stamp(file)] for file in self.files]

    def origins(self) -> Iterator[Path]:
        return iter(self.files)

    def portions(self) -> Iterator[list[Encoded]]:
        for file in self.files:
            row = 0
            for batch in _opened(file).iter_batches(batch_size=PORTION, columns=[self.image_column]):
                column = batch.column(0)
                encoded = (column.field("bytes") if _is_struct(column.type) else column).to_pylist()
                yield [Encoded(file, _giving(data), row + i) for i, data in enumerate(encoded)]
                row += len(encoded)


class NoLabelsError(InputFileError):
    """The images have no labels, like those of many published test sets. `problem` is the message without the path."""

    def __init__(self, path: Path, problem: str) -> None:
        self.problem = problem
        super().__init__(path, problem)


def open_parquet(path: Path, files: Sequence[Path], part: Part, *, labelled: bool = True) -> ParquetSource:
    """The images in these files of one split. If they need not be `labelled`, labels that are missing are 0.

    Raises `NoLabelsError` if no image has a label, `InputFileError` for files that cannot be used.
    """
    tables = [_Table.of(file) for file in files]
    first = tables[0]
    for table in tables[1:]:
        if (table.image_column, table.label_column) != (first.image_column, first.label_column):
            raise InputFileError(table.path, f"has other columns than {first.path.name}; use files of one data set")
        if table.classes != first.classes:
            raise InputFileError(table.path, f"has other class names than {first.path.name}; use files of one data set")
    columns = [table.read_labels() for table in tables]
    if not any(columns):
        raise InputFileError(path, "holds no images")
    if all(value is None or value == -1 for column in columns for value in column):
        if not labelled:
            labels = np.zeros(sum(map(len, columns)), dtype=np.int64)
            return ParquetSource(path, labels, None, part, tuple(files), first.image_column)
        raise NoLabelsError(path, f"no image has a label ({_labels_looked_for(first)})")
    classes, labels = _numbered(tables, columns)
    return ParquetSource(path, labels, classes, part, tuple(files), first.image_column)


def _labels_looked_for(table: _Table) -> str:
    if table.label_column is not None:
        return f"column {table.label_column}"
    names = ", ".join(_opened(table.path).schema_arrow.names)
    return f"columns {names}; labels are looked for in {', '.join(_LABEL_COLUMNS)}"


@dataclass(frozen=True)
class _Table:
    """One parquet file, and which of its columns are used."""

    path: Path
    image_column: str
    label_column: str | None
    classes: tuple[str, ...] | None

    @staticmethod
    def of(path: Path) -> _Table:
        file = _opened(path)
        schema = file.schema_arrow
        features = _features(schema)
        image_column = _column(schema, features, _IMAGE_COLUMNS, "Image")
        if image_column is None:
            raise InputFileError(
                path, f"has the columns {', '.join(schema.names)}; images are looked for in {', '.join(_IMAGE_COLUMNS)}"
            )
        _check_images(path, file, image_column)
        label_column = _column(schema, features, _LABEL_COLUMNS, "ClassLabel")
        return _Table(path, image_column, label_column, _class_names(features, label_column))

    def read_labels(self) -> list[Any]:
        """The labels as they are stored; None where there is no column."""
        file = _opened(self.path)
        if self.label_column is None:
            return [None] * int(file.metadata.num_rows)
        try:
            values: list[Any] = file.read(columns=[self.label_column]).column(self.label_column).to_pylist()
        except OSError as error:
            raise InputFileError(self.path, f"damaged ({str(error).splitlines()[0][:120]})") from error
        return values


def _numbered(
    tables: Sequence[_Table], columns: Sequence[Sequence[Any]]
) -> tuple[tuple[str, ...] | None, NDArray[np.int64]]:
    """Class names, if there are any, and the number of each label. Labels that are texts are the names themselves."""
    classes = tables[0].classes
    if any(isinstance(value, str) for column in columns for value in column):
        classes = classes or tuple(sorted({value for column in columns for value in column if isinstance(value, str)}))
        places = {name: place for place, name in enumerate(classes)}
        columns = [[_place(value, places) for value in column] for column in columns]
    most = len(classes) if classes is not None else _MOST_CLASSES
    for table, column in zip(tables, columns, strict=True):
        for row, value in enumerate(column):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < most:
                raise InputFileError(
                    table.path,
                    f"{table.label_column} is {value!r:.40}, not a whole number from 0 below {most}",
                    row=row,
                )
    return classes, np.concatenate([np.array(column, dtype=np.int64) for column in columns])


def _place(value: Any, places: Mapping[str, int]) -> Any:
    """The number of a class name. Other values, except None, become texts: they are no names."""
    if isinstance(value, str):
        return places.get(value, value)
    return value if value is None else str(value)


# --- one file ----------------------------------------------------------------------------------------


def _giving(data: bytes | None) -> Callable[[], bytes]:
    def read() -> bytes:
        if data is None:
            raise ValueError("no bytes")
        return data

    return read


def _opened(path: Path) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UsageError(f"parquet files need pyarrow: pip install 'ofa-profiler[train]' ({error})") from None
    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # pyarrow has many of its own
        why = what_instead(path) or f"not a parquet file, or damaged ({str(error).splitlines()[0][:120]})"
        raise InputFileError(path, why) from error


def _is_struct(kind: Any) -> bool:
    return int(kind.num_fields) > 0


def _features(schema: Any) -> dict[str, Any]:
    """What Hugging Face's `datasets` wrote beside the columns, if it did."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def _column(schema: Any, features: dict[str, Any], names: Sequence[str], kind: str) -> str | None:
    """The column with one of the `names`, or else the only one of this kind of feature."""
    for name in names:
        if name in schema.names:
            return name
    found = [name for name in schema.names if _kind(features.get(name)) == kind]
    return found[0] if len(found) == 1 else None


def _kind(feature: object) -> object:
    return feature.get("_type") if isinstance(feature, dict) else None


def _class_names(features: dict[str, Any], column: str | None) -> tuple[str, ...] | None:
    feature = features.get(column) if column is not None else None
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def _check_images(path: Path, file: Any, column: str) -> None:
    """Refuse a column that holds something else than the bytes of images."""
    kind = file.schema_arrow.field(column).type
    if str(kind) in ("binary", "large_binary"):
        return
    if not any(kind.field(i).name == "bytes" for i in range(kind.num_fields)):
        where = f"holds paths, not images; {_EMBED}" if "string" in str(kind) else ""
        raise InputFileError(path, f"column {column} {where or f'is of {kind}; a struct with `bytes` is needed'}")
    if _all_empty(file, column):
        paths = "paths, not images" if any(field.name == "path" for field in kind) else "no images"
        raise InputFileError(path, f"column {column} holds {paths}; {_EMBED}")


def _all_empty(file: Any, column: str) -> bool:
    """Whether no row has bytes."""
    if not file.metadata.num_rows:
        return False
    group = file.metadata.row_group(0)
    chunks = [group.column(place) for place in range(group.num_columns)]
    for chunk in chunks:
        if chunk.path_in_schema == f"{column}.bytes" and chunk.statistics and chunk.statistics.has_null_count:
            return bool(chunk.statistics.null_count == group.num_rows)
    sample = next(file.iter_batches(batch_size=64, columns=[column]))
    return bool(sample.column(0).field("bytes").null_count == len(sample))
