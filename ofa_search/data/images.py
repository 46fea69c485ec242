"""Labelled images, of any number: they are decoded once into a cache file and mapped into memory."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofa_profiler.base.progress import Reporter
from ofa_profiler.errors import InputFileError, UsageError
from ofa_search.data.cifar10 import CIFAR10_CLASSES, is_cifar10
from ofa_search.data.pixel_cache import cached_pixels
from ofa_search.data.source import Source, file_identities
from ofa_search.data.sources import open_source
from ofa_search.data.tree import count_of

_CPU = torch.device("cpu")
#: The share of a GPU's free memory that images may take.
_RESIDENT_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Images:
    """Some `rows` (all: None) of `stored` (M, 3, S, S) uint8 RGB, with `labels` (N,) int64, the class
    names, and a name for the whole. Batches of pixels are copied to `device` if they are stored elsewhere.
    `source` is where they came from.
    """

    name: str
    stored: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    rows: Tensor | None = None
    device: torch.device = _CPU
    source: Source | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> int:
        """Height and width."""
        return self.stored.shape[-1]

    @property
    def image_bytes(self) -> int:
        """The size of one image in memory."""
        return 3 * self.size * self.size

    @property
    def pixels(self) -> Tensor:
        """(N, 3, S, S) uint8. All images are loaded into memory, so use `take` before."""
        rows = self.stored if self.rows is None else self.stored[self.rows]
        return rows.to(self.device)

    def take(self, indices: Sequence[int] | NDArray[np.int64] | slice) -> Images:
        """Return only these images, without a copy."""
        index = torch.from_numpy(np.arange(len(self))[indices]).to(self.stored.device)
        rows = index if self.rows is None else self.rows[index]
        return replace(self, rows=rows, labels=self.labels[index.to(self.labels.device)])

    def to(self, device: torch.device) -> Images:
        """Return the same images for another device. They are stored there if the memory is large enough."""
        labels = self.labels.to(device)
        if device.type == "cuda" and self.stored.device != device:
            free_bytes, _ = torch.cuda.mem_get_info(device)
            if len(self) * self.image_bytes < _RESIDENT_SHARE * free_bytes:
                parts = [pixels.to(device) for pixels, _ in self.batches(4096)]
                return replace(self, stored=torch.cat(parts), labels=labels, rows=None, device=device)
        return replace(self, labels=labels, device=device)

    def split(self, held_out: int, seed: int = 0) -> tuple[Images, Images]:
        """Return the rest, and `held_out` images, which depend only on `seed` and the number of images."""
        if not 0 < held_out < len(self):
            raise UsageError(f"cannot hold out {held_out} of {len(self)} images of {self.name}")
        order = np.random.default_rng([seed, len(self)]).permutation(len(self))
        return self.take(np.sort(order[held_out:])), self.take(np.sort(order[:held_out]))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pixels and labels, in order."""
        for start in range(0, len(self), size):
            part = self.take(slice(start, start + size))
            yield part.pixels, part.labels

    def with_classes(self, classes: tuple[str, ...]) -> Images:
        """Return the same images, labelled by the order of `classes`. Raises `UsageError` if a class is missing."""
        if classes == self.classes:
            return self
        if missing := [name for name in self.classes if name not in classes]:
            alike = [name for name in classes if _simple(name) == _simple(missing[0])]
            hint = f"; {alike[0]!r} differs only in case or accents' encoding: rename one of them" if alike else ""
            raise UsageError(f"{self.name} has the class {missing[0]!r}, which the training images do not have{hint}")
        places = torch.tensor([classes.index(name) for name in self.classes], device=self.labels.device)
        return replace(self, labels=places[self.labels], classes=classes)


def _simple(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()


@dataclass(frozen=True)
class DataSplit:
    """The images of a training: training images, images held out from these, and test images, if any."""

    training: Images
    held_out: Images
    test: Images | None = None

    def measured(self) -> dict[str, Images]:
        """Return the images for measuring accuracies, by the name of the kind."""
        return {"held_out": self.held_out} | ({"test": self.test} if self.test is not None else {})


def load_images(
    path: str | Path,
    resolution: int | None = None,
    *,
    split: str = "train",
    cache: Path | None = None,
    progress: Reporter | None = None,
    exclude: Sequence[Path] = (),
    skip_damaged: bool = False,
    tell: Callable[[str], None] = lambda _line: None,
) -> Images:
    """Read a parquet file, a folder of them, or a folder of images with one folder per class.

    Small images that are all squares of one size are kept as they are. Others are stored for a network
    whose largest input has this `resolution`, in the folder `cache`. If a data set has splits, `split` (`train` or
    `test`) selects one; for `test`, the validation split serves where no test images have labels. `unlabelled` is for
    uses that need no labels: it takes any images. The folders `exclude`
    are no part of the data set. `tell` gets lines that say what was understood, before images are decoded.

    Raises `InputFileError` for what is not understood and for damaged images (all of them are named; `skip_damaged`
    leaves them out), `UsageError` if the cache cannot be written.
    """
    path = Path(path)
    source = open_source(path, split, exclude)
    for line in source.summary({"train": "training"}.get(split, split)):
        tell(line)
    pixels, damaged = cached_pixels(source, resolution, cache, progress, skip_damaged=skip_damaged)
    classes = source.classes
    if classes is None:
        count = int(source.labels.max()) + 1
        known = not damaged and is_cifar10(pixels, source.labels)
        classes = CIFAR10_CLASSES if known else tuple(map(str, range(count)))
        if known:
            tell(f"  these are the images of CIFAR-10: the classes are named {', '.join(classes)}")
    images = Images(path.stem, torch.from_numpy(pixels), torch.from_numpy(source.labels), classes)
    if damaged:
        tell(f"  left out: {count_of(len(damaged), 'damaged image')}")
        images = images.take(np.delete(np.arange(len(images)), damaged))
        if lost := [classes[label] for label in np.setdiff1d(source.labels, images.labels.numpy())]:
            raise InputFileError(path, f"all images of the class {lost[0]!r} are damaged; repair them or remove it")
    return replace(images, source=source)


def refuse_shared_files(training: Images, test: Images) -> None:
    """Raise `UsageError` if test images come from files of training images."""
    if training.source is None or test.source is None:
        return
    if shared := len(file_identities(training.source) & file_identities(test.source)):
        raise UsageError(
            f"{test.name}: {shared} files with test images are files of training images; "
            "give other images to test with, or leave --test-data away: some training images are held out anyway"
        )
