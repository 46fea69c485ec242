"""Labelled images, of any number: decoded once into a cache file, from which they are mapped into memory.

The cache holds raw pixels of one size in `images/` of the cache folder (`default_cache_dir`), 3 KB for an
image of CIFAR-10, 200 KB for one of ImageNet. A file is named by what it was made from, so it is made
again when an image changes. All of them may be deleted at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ofa_profiler.base.cache_dir import default_cache_dir, identity
from ofa_profiler.base.files import replacing
from ofa_profiler.base.locks import locked
from ofa_profiler.base.progress import Reporter, report
from ofa_profiler.errors import InputFileError, UsageError
from ofa_search.data.batches import SMALL
from ofa_search.data.sources import CIFAR10_CLASSES, Encoded, Source, open_source

#: Large images are kept so much larger than the largest input that is cut out of them.
_MARGIN = 1.15
_VERSION = 1
_CPU = torch.device("cpu")
#: Images that a thread decodes at a time.
_TOGETHER = 64
#: The share of a GPU's free memory that images may take.
_RESIDENT_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Images:
    """Some `rows` (all: None) of `stored` (M, 3, S, S) uint8 RGB, with `labels` (N,) int64, the class
    names, and a name for the whole. Batches of pixels are given on `device`, wherever they are stored.
    """

    name: str
    stored: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    rows: Tensor | None = None
    device: torch.device = _CPU

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> int:
        """Height and width."""
        return self.stored.shape[-1]

    @property
    def pixels(self) -> Tensor:
        """(N, 3, S, S) uint8, all in memory: ask for it after `take`."""
        rows = self.stored if self.rows is None else self.stored[self.rows]
        return rows.to(self.device)

    def take(self, indices: Sequence[int] | NDArray[np.int64] | slice) -> Images:
        """Those images alone. Nothing is copied."""
        index = torch.from_numpy(np.arange(len(self))[indices]).to(self.stored.device)
        rows = index if self.rows is None else self.rows[index]
        return replace(self, rows=rows, labels=self.labels[index.to(self.labels.device)])

    def to(self, device: torch.device) -> Images:
        """The same, giving its pixels on another device, and kept there if there is room."""
        labels = self.labels.to(device)
        if device.type == "cuda" and self.stored.device != device:
            free_bytes, _ = torch.cuda.mem_get_info(device)
            if len(self) * self.stored[0].numel() < _RESIDENT_SHARE * free_bytes:
                parts = [pixels.to(device) for pixels, _ in self.batches(4096)]
                return replace(self, stored=torch.cat(parts), labels=labels, rows=None, device=device)
        return replace(self, labels=labels, device=device)

    def split(self, held_out: int, seed: int = 0) -> tuple[Images, Images]:
        """The rest, and `held_out` images drawn by `seed`: the same ones whoever asks."""
        if not 0 < held_out < len(self):
            raise UsageError(f"cannot hold out {held_out} of {len(self)} images of {self.name}")
        order = np.random.default_rng([seed, len(self)]).permutation(len(self))
        return self.take(np.sort(order[held_out:])), self.take(np.sort(order[:held_out]))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels and labels, in order."""
        for start in range(0, len(self), size):
            part = self.take(slice(start, start + size))
            yield part.pixels, part.labels

    def with_classes(self, classes: tuple[str, ...]) -> Images:
        """The same, labelled by the places of its classes in `classes`. Raises `UsageError` if one is not there."""
        if classes == self.classes:
            return self
        if missing := [name for name in self.classes if name not in classes]:
            raise UsageError(f"{self.name} has the class {missing[0]!r}, which the training images have not")
        places = torch.tensor([classes.index(name) for name in self.classes], device=self.labels.device)
        return replace(self, labels=places[self.labels], classes=classes)


@dataclass(frozen=True)
class DataSplit:
    """The images of a training: those that it learns from, those held out of them, and test images, if any."""

    training: Images
    held_out: Images
    test: Images | None = None

    def measured(self) -> dict[str, Images]:
        """The images that accuracies are measured on, by the name of the kind."""
        return {"held_out": self.held_out} | ({"test": self.test} if self.test is not None else {})


def load_images(
    path: str | Path,
    resolution: int | None = None,
    *,
    split: str = "train",
    cache: Path | None = None,
    progress: Reporter | None = None,
) -> Images:
    """Read a parquet file, a folder of them (`train-*.parquet`, `test-*.parquet`), or a folder per class.

    Small images that are all squares of one size are kept as they are. Others are stored for a network
    whose largest input has this `resolution`, in the folder `cache`. Where a folder has parts for
    training and testing, `split` (`train` or `test`) says which is meant.

    Raises `InputFileError` for a damaged file or image, `UsageError` if the cache cannot be written.
    """
    path = Path(path)
    source = open_source(path, split)
    folder = cache if cache is not None else default_cache_dir() / "images"
    key = identity({"version": _VERSION, "source": source.identity(), "resolution": resolution})
    file = folder / f"{key}.npy"
    stored = _mapped(file, len(source.labels))
    if stored is None:
        with _alone(folder, key):
            stored = _mapped(file, len(source.labels))  # another may have written it while we waited
            if stored is None:
                _remove_leftovers(folder, key)
                _decode_all(file, source, resolution, progress)
                stored = _mapped(file, len(source.labels))
    if stored is None:
        raise UsageError(f"cannot read back {file}")
    classes = _class_names(source, stored.shape[-1])
    return Images(path.stem, torch.from_numpy(stored), torch.from_numpy(source.labels), classes)


def _class_names(source: Source, size: int) -> tuple[str, ...]:
    if source.classes is not None:
        return source.classes
    count = int(source.labels.max()) + 1
    is_cifar = count == len(CIFAR10_CLASSES) and size == 32
    return CIFAR10_CLASSES if is_cifar else tuple(map(str, range(count)))


def _own_size(source: Source) -> int | None:
    """The size of the first image, if it is a small square."""
    from ofa_search.data.decoding import image_size

    first = next(source.portions())[0]
    with _naming(first):
        width, height = image_size(first.read())
    return width if width == height <= SMALL else None


def _decode_all(file: Path, source: Source, resolution: int | None, progress: Reporter | None) -> None:
    """Write the cache file: small squares of one size as they are, others for that resolution."""
    from ofa_search.data.decoding import OtherSizeError

    size = _own_size(source)
    if size is not None:
        with contextlib.suppress(OtherSizeError):
            return _write(file, source, size, progress, exactly=True)
    if resolution is None:
        raise InputFileError(source.path, "its images are large or of several sizes; say for which resolution")
    size = resolution if resolution <= SMALL else round(_MARGIN * resolution)
    return _write(file, source, size, progress, exactly=False)


def _mapped(file: Path, count: int) -> NDArray[np.uint8] | None:
    """The array in a cache file; None if there is none, or it is broken."""
    try:
        # Copy on write: torch wants arrays that can be written to, nothing of ours writes.
        stored: NDArray[np.uint8] = np.load(file, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_ours = stored.dtype == np.uint8 and stored.shape == (count, 3, *2 * stored.shape[-1:])
    return stored if is_ours else None


def _write(file: Path, source: Source, size: int, progress: Reporter | None, *, exactly: bool) -> None:
    shape = (len(source.labels), 3, size, size)
    # Written, not mapped: a full disk is then an error that can be told.
    with replacing(file) as temporary, temporary.open("wb") as target, ThreadPoolExecutor() as pool:
        _write_header(target, shape)
        done = 0
        for portion in source.portions():
            parts = [portion[start : start + _TOGETHER] for start in range(0, len(portion), _TOGETHER)]
            for decoded in pool.map(partial(_decoded, size=size, exactly=exactly), parts):
                target.write(decoded.data)
            done += len(portion)
            report(progress, "decode", done, shape[0], words="images")


def _write_header(target: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(target, header)


def _decoded(part: Sequence[Encoded], size: int, *, exactly: bool) -> NDArray[np.uint8]:
    from ofa_search.data.decoding import decode

    pixels = np.empty((len(part), 3, size, size), dtype=np.uint8)
    for place, encoded in zip(pixels, part, strict=True):
        with _naming(encoded):
            place[:] = decode(encoded.read(), size, exactly=exactly)
    return pixels


@contextlib.contextmanager
def _naming(encoded: Encoded) -> Iterator[None]:
    """Say of which image an error is."""
    from ofa_search.data.decoding import OtherSizeError

    try:
        yield
    except OtherSizeError:
        raise
    except Exception as error:  # a damaged file makes Pillow fail in any way it can
        raise InputFileError(encoded.path, f"not an image, or damaged ({str(error)[:100]})", row=encoded.row) from error


@contextlib.contextmanager
def _alone(folder: Path, key: str) -> Iterator[None]:
    """Within, no other process writes this file: of trainings that start together, the first decodes."""
    file = folder / f".{key}.lock"
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(file))
        except OSError as error:
            raise UsageError(f"cannot write {error.filename or file}: {error.strerror or error}") from error
        yield


def _remove_leftovers(folder: Path, key: str) -> None:
    """Remove what killed runs left of this file."""
    for path in folder.glob(f".{key}.npy.*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()
