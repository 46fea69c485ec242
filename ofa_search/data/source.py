"""What every source of labelled images has in common.

A source knows the labels of its images at once, and gives their encoded bytes in portions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_search.data.layout import ALL
from ofa_search.data.tree import Remark, count_of, identity_of

#: The number of images that a source gives at once.
PORTION = 1024
_MOST_SHOWN = 12
_CLASSES_SHOWN = 10


@dataclass(frozen=True)
class Encoded:
    """The bytes of one image; `path` and `row`, or `path` alone, say which one it is."""

    path: Path
    read: Callable[[], bytes]
    row: int | None = None


@dataclass(frozen=True)
class Part:
    """Which split of a data set a source gives, the images or files in the other splits, and what is left out."""

    split: str = ALL
    unused: tuple[tuple[str, str], ...] = ()
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, eq=False)
class Source(ABC):
    """`labels` (N,) int64 and the class names, or None if the source has no names."""

    path: Path
    labels: NDArray[np.int64]
    classes: tuple[str, ...] | None
    part: Part

    @abstractmethod
    def identity(self) -> list[Any]:
        """JSON that differs when the images differ: names, sizes and times of the files."""

    @abstractmethod
    def origins(self) -> Iterator[Path]:
        """The files that hold the images."""

    @abstractmethod
    def portions(self) -> Iterator[list[Encoded]]:
        """All images, in the order of the labels."""

    def summary(self, use: str) -> list[str]:
        """Lines that say what was understood, for people: split, classes, counts, and what is left out."""
        counts = np.bincount(self.labels)
        names = self.classes if self.classes is not None else tuple(map(str, range(len(counts))))
        shown = ", ".join(names[:_CLASSES_SHOWN]) + (", …" if len(names) > _CLASSES_SHOWN else "")
        least, most = int(counts.min(initial=len(self.labels))), int(counts.max(initial=0))
        each = f"{most} each" if least == most and len(counts) == len(names) else f"{least} to {most} each"
        where = f"{self.path}" if self.part.split == ALL else f"{self.path} ({self.part.split})"
        lines = [
            f"{use} images: {where}: {count_of(len(self.labels))} of {count_of(len(names), 'class')} ({shown}), {each}"
        ]
        lines += [f"  not used for this: {split} ({what})" for split, what in self.part.unused]
        lines += [f"  {remark}" for remark in self.part.remarks[:_MOST_SHOWN]]
        if len(self.part.remarks) > _MOST_SHOWN:
            lines.append(f"  and {len(self.part.remarks) - _MOST_SHOWN} more remarks")
        return lines


def stamp(path: Path) -> list[Any]:
    """Size and time of a file; nothing if it cannot be read."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def file_identities(source: Source) -> set[tuple[int, int]]:
    """Device and inode of the files, to compare with those of another source."""
    return {identity for path in source.origins() if (identity := identity_of(path)) is not None}
