"""Labelled images, of any number: they are decoded once into a cache file and mapped into memory.

The cache holds raw pixels of one size in `images/` of the cache folder (`default_cache_dir`), 3 KB for an
image of CIFAR-10, 200 KB for one of ImageNet. The name of a file is a hash of its
sources, so a changed image gives a new file. All cache files can be deleted at any time.
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

#: Large images are stored larger than the largest input by this factor, for random crops.
_MARGIN = 1.15
_VERSION = 1
_CPU = torch.device("cpu")
#: The number of images that a thread decodes per task.
_TOGETHER = 64
#: The share of a GPU's free memory that images may take.
_RESIDENT_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Images:
    """Some `rows` (all: None) of `stored` (M, 3, S, S) uint8 RGB, with `labels` (N,) int64, the class
    names, and a name for the whole. Batches of pixels are copied to `device` if they are stored elsewhere.
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
            if len(self) * self.stored[0].numel() < _RESIDENT_SHARE * free_bytes:
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
            raise UsageError(f"{self.name} has the class {missing[0]!r}, which the training images do not have")
        places = torch.tensor([classes.index(name) for name in self.classes], device=self.labels.device)
        return replace(self, labels=places[self.labels], classes=classes)


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
) -> Images:
    """Read a parquet file, a folder of them (`train-*.parquet`, `test-*.parquet`), or a folder per class.

    Small images that are all squares of one size are kept as they are. Others are stored for a network
    whose largest input has this `resolution`, in the folder `cache`. If a folder has parts for training
    and testing, `split` (`train` or `test`) selects one.

    Raises `InputFileError` for a damaged file or image, `UsageError` if the cache cannot be written.
    """
    path = Path(path)
    source = open_source(path, split)
    folder = cache if cache is not None else default_cache_dir() / "images"
    key = identity({"version": _VERSION, "source": source.identity(), "resolution": resolution})
    file = folder / f"{key}.npy"
    stored = _mapped(file, len(source.labels))
    if stored is None:
        with _cache_lock(folder, key):
            stored = _mapped(file, len(source.labels))  # another process may have written it during the wait
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
    """Return the size of the first image, if it is a small square."""
    from ofa_search.data.decoding import image_size

    first = next(source.portions())[0]
    with _named_errors(first):
        width, height = image_size(first.read())
    return width if width == height <= SMALL else None


def _decode_all(file: Path, source: Source, resolution: int | None, progress: Reporter | None) -> None:
    """Write the cache file. Small squares of one size stay as they are; others are scaled for the resolution."""
    from ofa_search.data.decoding import OtherSizeError

    size = _own_size(source)
    if size is not None:
        with contextlib.suppress(OtherSizeError):
            return _write(file, source, size, progress, exactly=True)
    if resolution is None:
        raise InputFileError(source.path, "its images are large or of several sizes; set a resolution")
    size = resolution if resolution <= SMALL else round(_MARGIN * resolution)
    return _write(file, source, size, progress, exactly=False)


def _mapped(file: Path, count: int) -> NDArray[np.uint8] | None:
    """Return the array in a cache file; None if there is no file or it is damaged."""
    try:
        # Copy on write, because torch requires writable arrays. This package never writes to them.
        stored: NDArray[np.uint8] = np.load(file, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_ours = stored.dtype == np.uint8 and stored.shape == (count, 3, *2 * stored.shape[-1:])
    return stored if is_ours else None


def _write(file: Path, source: Source, size: int, progress: Reporter | None, *, exactly: bool) -> None:
    shape = (len(source.labels), 3, size, size)
    # The file is written, not mapped, because then a full disk raises an error.
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
        with _named_errors(encoded):
            place[:] = decode(encoded.read(), size, exactly=exactly)
    return pixels


@contextlib.contextmanager
def _named_errors(encoded: Encoded) -> Iterator[None]:
    """Add the name of the image to an error."""
    from ofa_search.data.decoding import OtherSizeError

    try:
        yield
    except OtherSizeError:
        raise
    except Exception as error:  # a damaged file can make Pillow raise any error
        raise InputFileError(encoded.path, f"not an image, or damaged ({str(error)[:100]})", row=encoded.row) from error


@contextlib.contextmanager
def _cache_lock(folder: Path, key: str) -> Iterator[None]:
    """Lock this cache file against other processes: if trainings start together, only the first one decodes."""
    file = folder / f".{key}.lock"
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(file))
        except OSError as error:
            raise UsageError(f"cannot write {error.filename or file}: {error.strerror or error}") from error
        yield


def _remove_leftovers(folder: Path, key: str) -> None:
    """Remove temporary files that killed runs left."""
    for path in folder.glob(f".{key}.npy.*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()
