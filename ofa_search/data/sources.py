"""Where labelled images come from: folders of image files, and parquet files as Hugging Face writes them.

A source knows the labels of its images at once, and gives their encoded bytes in portions.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import InputFileError, UsageError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
#: The names that the parts of a data set go by, in file and folder names.
SPLITS = {"train": ("train", "training"), "test": ("test", "validation", "valid", "val")}

_PORTION = 1024
_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "labels", "fine_label")


@dataclass(frozen=True)
class Encoded:
    """The bytes of one image; `path` and `row`, or `path` alone, say which one it is."""

    path: Path
    read: Callable[[], bytes]
    row: int | None = None


@dataclass(frozen=True, eq=False)
class Source(ABC):
    """`labels` (N,) int64 and the class names, or None where the images must tell (see `data.py`)."""

    path: Path
    labels: NDArray[np.int64]
    classes: tuple[str, ...] | None

    @abstractmethod
    def identity(self) -> list[Any]:
        """JSON that differs when the images differ: names, sizes and times of the files."""

    @abstractmethod
    def portions(self) -> Iterator[list[Encoded]]:
        """All images, in the order of the labels."""


def open_source(path: Path, split: str) -> Source:
    """The source at `path`; where it has parts for training and testing, the one for `split`.

    Raises `InputFileError` for what holds no images.
    """
    if not path.exists():
        raise InputFileError(path, "no such file or folder")
    if path.is_file():
        return _open_parquet(path, [path])
    if files := sorted(path.glob("*.parquet")):
        return _open_parquet(path, _parts(path, files, split))
    return _open_folder(path, split)


def _parts(path: Path, files: Sequence[Path], split: str) -> list[Path]:
    """The files of this split, by their names; all of them where no name speaks of a split."""
    named = {which: [f for f in files if f.stem.split("-")[0] in SPLITS[which]] for which in SPLITS}
    if not any(named.values()):
        return list(files)
    if not named[split]:
        names = " or ".join(f"{name}-*.parquet" for name in SPLITS[split])
        raise InputFileError(path, f"has no {names}; name the file itself")
    return named[split]


def _stamp(path: Path) -> list[Any]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


# --- folders -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FolderSource(Source):
    """`ROOT/class/image`; the classes are the folders, by name."""

    files: tuple[Path, ...]

    def identity(self) -> list[Any]:
        return [[str(file.relative_to(self.path)), *_stamp(file)] for file in self.files]

    def portions(self) -> Iterator[list[Encoded]]:
        for start in range(0, len(self.files), _PORTION):
            yield [Encoded(file, file.read_bytes) for file in self.files[start : start + _PORTION]]


def _open_folder(path: Path, split: str) -> FolderSource:
    folders = _subfolders(path)
    splits = {name: which for which, names in SPLITS.items() for name in names}
    if folders and all(folder.name in splits for folder in folders):
        chosen = [folder for folder in folders if splits[folder.name] == split]
        if len(chosen) != 1:
            raise InputFileError(path, f"has {len(chosen)} folders of images to {split} with; name the folder itself")
        path, folders = chosen[0], _subfolders(chosen[0])
    by_class = {folder.name: _images(folder) for folder in folders}
    by_class = {name: files for name, files in by_class.items() if files}
    if not by_class:
        kinds = ", ".join(suffix.removeprefix(".") for suffix in SUFFIXES)
        raise InputFileError(path, f"holds no images: expected one folder per class, with files of {kinds} in it")
    files = tuple(file for group in by_class.values() for file in group)
    labels = np.repeat(np.arange(len(by_class)), [len(group) for group in by_class.values()])
    return FolderSource(path, labels, tuple(by_class), files)


def _subfolders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )


# --- parquet -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ParquetSource(Source):
    """Column `image_column` holds structs with `bytes`."""

    files: tuple[Path, ...]
    image_column: str

    def identity(self) -> list[Any]:
        return [[file.name, *_stamp(file)] for file in self.files]

    def portions(self) -> Iterator[list[Encoded]]:
        for file in self.files:
            row = 0
            for batch in _parquet(file).iter_batches(batch_size=_PORTION, columns=[self.image_column]):
                column = batch.column(0)
                encoded = column.field("bytes").to_pylist()
                yield [Encoded(file, _giving(data), row + i) for i, data in enumerate(encoded)]
                row += len(encoded)


def _giving(data: bytes | None) -> Callable[[], bytes]:
    def read() -> bytes:
        if data is None:
            raise ValueError("no bytes")
        return data

    return read


def _parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UsageError(f"parquet files need pyarrow: pip install 'ofa-profiler[train]' ({error})") from None
    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # pyarrow has many of its own
        raise InputFileError(path, f"not a parquet file, or damaged ({str(error).splitlines()[0][:120]})") from error


def _open_parquet(path: Path, files: Sequence[Path]) -> ParquetSource:
    schema = _parquet(files[0]).schema_arrow
    image_column = _column(files[0], schema, _IMAGE_COLUMNS, "images")
    kind = schema.field(image_column).type
    if not any(kind.field(i).name == "bytes" for i in range(kind.num_fields)):
        raise InputFileError(files[0], f"column {image_column} is of {kind}; a struct with `bytes` is needed")
    label_column = _column(files[0], schema, _LABEL_COLUMNS, "labels")
    classes = _class_names(schema, label_column)
    labels = np.concatenate([_labels(file, label_column, classes) for file in files])
    if not len(labels):
        raise InputFileError(path, "holds no images")
    return ParquetSource(path, labels, classes, tuple(files), image_column)


def _column(path: Path, schema: Any, names: Sequence[str], what: str) -> str:
    for name in names:
        if name in schema.names:
            return name
    raise InputFileError(
        path, f"has the columns {', '.join(schema.names)}; {what} are looked for in {', '.join(names)}"
    )


def _labels(path: Path, column: str, classes: tuple[str, ...] | None) -> NDArray[np.int64]:
    try:
        values = _parquet(path).read(columns=[column]).column(column).to_pylist()
    except OSError as error:
        raise InputFileError(path, f"damaged ({str(error).splitlines()[0][:120]})") from error
    most = len(classes) if classes is not None else 1 << 20
    for row, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < most:
            raise InputFileError(path, f"{column} is {value!r:.40}, not a whole number from 0 below {most}", row=row)
    return np.array(values, dtype=np.int64)


def _class_names(schema: Any, column: str) -> tuple[str, ...] | None:
    """What Hugging Face's `datasets` wrote beside the columns, if it did."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)
