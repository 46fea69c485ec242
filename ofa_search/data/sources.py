"""Where labelled images come from: folders of image files, and parquet files as Hugging Face writes them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa_profiler.errors import InputFileError
from ofa_search.data.classes import NotUnderstood
from ofa_search.data.layout import ALL, USED_FOR, spell, understand
from ofa_search.data.parquet import NoLabelsError, ParquetSource, open_parquet
from ofa_search.data.shards import sort_shards
from ofa_search.data.source import PORTION, Encoded, Part, Source, stamp
from ofa_search.data.tree import NOTE, Folder, Remark, count_of, inside, read_tree
from ofa_search.data.words import UNLABELLED


@dataclass(frozen=True, eq=False)
class FolderSource(Source):
    """Image files; the classes are folders. `files` are paths below `path`."""

    files: tuple[str, ...]

    def identity(self) -> list[Any]:
        return [[place, *stamp(self.path / place)] for place in self.files]

    def origins(self) -> Iterator[Path]:
        return (self.path / place for place in self.files)

    def portions(self) -> Iterator[list[Encoded]]:
        for start in range(0, len(self.files), PORTION):
            paths = [self.path / place for place in self.files[start : start + PORTION]]
            yield [Encoded(path, path.read_bytes) for path in paths]


def open_source(path: Path, use: str, exclude: Sequence[Path] = ()) -> Source:
    """The images at `path` for `use`, `train`, `test` or `unlabelled`: those of its split, if the data set has splits.

    The folders `exclude` are no part of the data set. Raises `InputFileError` for what holds no such images.
    """
    if path.is_file():
        return open_parquet(path, [path], Part(), labelled=use != UNLABELLED)
    if not path.is_dir():
        raise InputFileError(path, "no such file or folder")
    tree = read_tree(path, _suffixes(), tuple(exclude))
    if tree.problem:
        raise InputFileError(path, tree.problem)
    shards = [inside(folder.place, name) for folder in tree.walk() for name in folder.parquet]
    try:
        if any("/" not in shard for shard in shards):
            return _open_shards(path, shards, use)
        try:
            return _open_folder(path, tree, use)
        except NotUnderstood:
            if shards:
                return _open_shards(path, shards, use)
            if use == UNLABELLED and tree.image_count:
                return _of_no_classes(path, tree)
            raise
    except NotUnderstood as error:
        raise InputFileError(path / error.place if error.place else path, error.problem) from error


def _of_no_classes(path: Path, tree: Folder) -> FolderSource:
    files = tuple(tree.image_places())
    return FolderSource(path, np.zeros(len(files), dtype=np.int64), None, Part(), files)


def _suffixes() -> frozenset[str]:
    from ofa_search.data.decoding import readable_suffixes

    return readable_suffixes()


# --- folders -----------------------------------------------------------------------------------------


def _open_folder(path: Path, tree: Folder, use: str) -> FolderSource:
    if not tree.image_count:
        raise NotUnderstood("", _nothing_readable(tree))
    layout = understand(tree)
    split, classes = layout.chosen(use)
    _check_names(classes)
    unused = tuple(
        (other, f"{count_of(sum(map(len, images.values())))} of {count_of(len(images), 'class')}")
        for other, images in layout.splits.items()
        if other != split
    )
    part = Part(split, unused, (*layout.remarks, *_doubts(classes)))
    files = tuple(file for group in classes.values() for file in group)
    labels = np.repeat(np.arange(len(classes)), [len(group) for group in classes.values()])
    return FolderSource(path, labels, tuple(classes), part, files)


def _nothing_readable(tree: Folder) -> str:
    kinds = ", ".join(sorted(suffix.removeprefix(".") for suffix in _suffixes()))
    others = tree.other_files()
    found = f", found {spell(others)}" if others else ""
    problems = "".join(f"; {folder.place} {folder.problem}" for folder in list(tree.walk())[:100] if folder.problem)
    return f"holds no images{found}{problems}: expected one folder per class, with files of {kinds} in it"


def _check_names(classes: Mapping[str, object]) -> None:
    wrong = next((name for name in classes if any("\ud800" <= character <= "\udfff" for character in name)), None)
    if wrong is not None:
        shown = os.fsencode(wrong).decode("ascii", "backslashreplace")
        raise NotUnderstood("", f"the name of the class '{shown}' is not UTF-8; rename the folder")


def _doubts(classes: Mapping[str, object]) -> list[Remark]:
    """Notes on classes that differ only in case."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[name.casefold()].append(name)
    return [
        Remark("", f"the classes {' and '.join(map(repr, names))} differ only in case", NOTE)
        for names in alike.values()
        if len(names) > 1
    ]


# --- parquet -----------------------------------------------------------------------------------------


def _open_shards(path: Path, places: Sequence[str], use: str) -> ParquetSource:
    shards = sort_shards(places)
    remarks = list(shards.remarks)
    for split in USED_FOR[use]:
        if split not in shards.splits:
            continue
        files = [path / place for place in shards.splits[split]]
        unused = tuple(
            (other, count_of(len(names), "file")) for other, names in shards.splits.items() if other != split
        )
        try:
            return open_parquet(path, files, Part(split, unused, tuple(remarks)), labelled=use != UNLABELLED)
        except NoLabelsError as error:
            if split == ALL:
                raise
            remarks.append(Remark(split, error.problem))
    words = " or ".join(f"{split}-*.parquet" for split in USED_FOR[use] if split != ALL)
    reasons = "".join(f" ({entry})" for entry in remarks[:3])
    raise NotUnderstood("", f"has no {words} with labels{reasons}; name the file itself")
