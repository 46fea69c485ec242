"""The names in a folder of images, without opening a file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

#: Folders of operating systems, storage devices and tools. Hidden folders and `__*` are skipped as well.
_SYSTEM_FOLDERS = frozenset(
    ("@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found", "system volume information")
)
#: Files that only results of a training or a search have.
_RESULT_FILES = frozenset(
    ("search.json", "subnet.json", "supernet.safetensors", "predictor.safetensors", "training.safetensors")
)
#: So many symbolic links may lie on the way to a folder.
_MOST_LINKS = 2
_DEEPEST = 50
#: Descriptions of images that Hugging Face's image folders may have. They are not read: classes are folders.
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
#: The kind of a remark on what is used.
NOTE = "note"


@dataclass(frozen=True)
class Folder:
    """A folder: its `images`, the number of other files by suffix (of `METADATA` by name), and its subfolders.

    `place` is its path below the root, with `/`, and empty for the root. `problem` says why it was not read.
    """

    place: str
    images: tuple[str, ...] = ()
    others: tuple[tuple[str, int], ...] = ()
    folders: tuple[Folder, ...] = ()
    parquet: tuple[str, ...] = ()
    problem: str = ""

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.place.rpartition("/")[2]

    @cached_property
    def filled(self) -> tuple[Folder, ...]:
        """The subfolders with images at any depth."""
        return tuple(folder for folder in self.folders if folder.image_count)

    @cached_property
    def image_count(self) -> int:
        """Images at any depth."""
        return len(self.images) + sum(folder.image_count for folder in self.folders)

    def walk(self) -> Iterator[Folder]:
        """This folder and all below it."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def image_places(self) -> Iterator[str]:
        """The paths of all images at any depth, below the root."""
        for folder in self.walk():
            yield from (inside(folder.place, name) for name in folder.images)

    def other_files(self) -> Counter[str]:
        """The number of files that are not read, by suffix, at any depth."""
        count: Counter[str] = Counter()
        for folder in self.walk():
            count.update(dict(folder.others))
        return count


def inside(place: str, name: str) -> str:
    """The path of `name` in the folder `place`."""
    return f"{place}/{name}" if place else name


def count_of(count: int, what: str = "image") -> str:
    """Like `1 image` and `3 classes`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}{'es' if what.endswith('s') else 's'}"


def suffix_of(name: str) -> str:
    """In lower case, with the dot; empty where there is none."""
    stem, dot, suffix = name.rpartition(".")
    return dot + suffix.lower() if stem else ""


def read_tree(root: Path, suffixes: frozenset[str], exclude: tuple[Path, ...] = ()) -> Folder:
    """All folders below `root`. Files with one of the `suffixes` are images.

    Skipped are hidden files and folders, `__*`, folders of systems and tools, results of a training, and the
    folders `exclude`. Symbolic links are followed, except in circles.
    """
    excluded = frozenset(identity for path in exclude if (identity := identity_of(path)) is not None)
    return _Reader(suffixes, excluded).read(os.fspath(root), "", (), 0)


def identity_of(path: Path) -> tuple[int, int] | None:
    """Device and inode: two paths to one file have the same. None where there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


@dataclass(frozen=True)
class Remark:
    """What people should know about the `place` in a data set (empty: all of it); `kind` is `left out` or `note`."""

    place: str
    text: str
    kind: str = "left out"

    def __str__(self) -> str:
        return f"{self.kind}: {self.place}: {self.text}" if self.place else f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class _Reader:
    suffixes: frozenset[str]
    exclude: frozenset[tuple[int, int]]

    def read(self, path: str, place: str, above: tuple[tuple[int, int], ...], links: int) -> Folder:
        """The folder at `path`; `above` are the identities of the folders that it lies in."""
        try:
            stat = Path(path).stat()
            identity = stat.st_dev, stat.st_ino
            if identity in above:
                return Folder(place, problem="a link to a folder that it lies in")
            if place and identity in self.exclude:
                return Folder(place, problem="results are written there")
            with os.scandir(path) as entries:
                listed = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
        except OSError as error:
            return Folder(place, problem=f"cannot be read ({error.strerror})")
        if place and any(entry.name in _RESULT_FILES for entry in listed):
            return Folder(place, problem="results of ofa-train or ofa-search")
        return self._folder(place, listed, (*above, identity), links)

    def _folder(
        self, place: str, listed: list[os.DirEntry[str]], above: tuple[tuple[int, int], ...], links: int
    ) -> Folder:
        images: list[str] = []
        parquet: list[str] = []
        others: Counter[str] = Counter()
        folders: list[Folder] = []
        for entry in listed:
            suffix = suffix_of(entry.name)
            if entry.is_dir():
                linked = links + entry.is_symlink()
                folders.append(self._subfolder(entry, inside(place, entry.name), above, linked))
            elif suffix in self.suffixes and (entry.is_file() or entry.is_symlink()):
                images.append(entry.name)
            elif suffix == ".parquet" and entry.name not in METADATA:
                parquet.append(entry.name)
            else:
                others[entry.name if entry.name in METADATA else suffix] += 1
        return Folder(place, tuple(images), tuple(others.items()), tuple(folders), tuple(parquet))

    def _subfolder(self, entry: os.DirEntry[str], place: str, above: tuple[tuple[int, int], ...], links: int) -> Folder:
        if entry.name.startswith("__") or entry.name.lower() in _SYSTEM_FOLDERS:
            return Folder(place, problem="a folder of a system or a tool")
        if place.count("/") > _DEEPEST:
            return Folder(place, problem="too deep")
        if links > _MOST_LINKS:
            return Folder(place, problem="a link behind other links")
        return self.read(entry.path, place, above, links)
