"""The cache of decoded images.

It holds raw pixels of one size in `images/` of the cache folder (`default_cache_dir`), 3 KB for an image of CIFAR-10,
200 KB for one of ImageNet. The name of a file is a hash of its sources, so a changed image gives a new file. All cache
files can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.base.cache_dir import default_cache_dir, identity
from ofa_profiler.base.files import replacing
from ofa_profiler.base.locks import locked
from ofa_profiler.base.progress import Reporter, report
from ofa_profiler.errors import InputFileError, UsageError
from ofa_search.data.batches import SMALL
from ofa_search.data.source import Encoded, Source

#: Large images are stored larger than the largest input by this factor, for random crops.
_MARGIN = 1.15
_VERSION = 2
#: The number of images that a thread decodes per task.
_TOGETHER = 64
#: Damaged images are named up to this number.
_MOST_NAMED = 20


@dataclass(frozen=True)
class Damaged:
    """An image that cannot be decoded: its place among all images, its file, and why."""

    place: int
    encoded: Encoded
    why: str

    def __str__(self) -> str:
        row = f", row {self.encoded.row}" if self.encoded.row is not None else ""
        return f"{self.encoded.path}{row}: {self.why}"


def cached_pixels(
    source: Source, resolution: int | None, cache: Path | None, progress: Reporter | None, *, skip_damaged: bool = False
) -> tuple[NDArray[np.uint8], list[int]]:
    """Pixels (N, 3, S, S) of all images, black where one is damaged, and the places of those that are.

    Raises `InputFileError` for damaged images unless `skip_damaged`.
    """
    folder = cache if cache is not None else default_cache_dir() / "images"
    key = identity(
        {"version": _VERSION, "source": source.identity(), "resolution": resolution, "skip_damaged": skip_damaged}
    )
    file = folder / f"{key}.npy"
    found = _cached(file, source, skip_damaged=skip_damaged)
    if found is None:
        with _cache_lock(folder, key):
            found = _cached(
                file, source, skip_damaged=skip_damaged
            )  # another process may have written it during the wait
            if found is None:
                _remove_leftovers(folder, key)
                _decode_all(file, source, resolution, progress, skip_damaged=skip_damaged)
                found = _cached(file, source, skip_damaged=skip_damaged)
    if found is None:
        raise UsageError(f"cannot read back {file}")
    return found


def _decode_all(
    file: Path, source: Source, resolution: int | None, progress: Reporter | None, *, skip_damaged: bool
) -> None:
    """Write the cache file. Small squares of one size stay as they are; others are scaled for the resolution."""
    from ofa_search.data.decoding import OtherSizeError

    size = _own_size(source)
    if size is not None:
        with contextlib.suppress(OtherSizeError):
            return _write(file, source, size, progress, exactly=True, skip_damaged=skip_damaged)
    if resolution is None:
        raise InputFileError(source.path, "its images are large or of several sizes; set a resolution")
    size = resolution if resolution <= SMALL else round(_MARGIN * resolution)
    return _write(file, source, size, progress, exactly=False, skip_damaged=skip_damaged)


def _own_size(source: Source) -> int | None:
    """The size of the first image that is not damaged, if it is a small square."""
    from ofa_search.data.decoding import image_size

    for portion in source.portions():
        for encoded in portion:
            with contextlib.suppress(Exception):  # a damaged file can make Pillow raise any error
                width, height = image_size(encoded.read())
                return width if width == height <= SMALL else None
    return SMALL


def _cached(file: Path, source: Source, *, skip_damaged: bool) -> tuple[NDArray[np.uint8], list[int]] | None:
    """The array in a cache file and the places of damaged images; None if there is no file or it is broken."""
    try:
        # Copy on write, because torch requires writable arrays. This package never writes to them.
        stored: np.memmap[Any, np.dtype[np.uint8]] = np.load(file, mmap_mode="c", allow_pickle=False)
        if stored.dtype != np.uint8 or stored.shape != (len(source.labels), 3, *2 * stored.shape[-1:]):
            return None
        if not skip_damaged:
            return stored, []
        with file.open("rb") as opened:
            opened.seek(stored.offset + stored.nbytes)
            return stored, [int(place) for place in json.loads(opened.read())["damaged"]]
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None


def _write(
    file: Path, source: Source, size: int, progress: Reporter | None, *, exactly: bool, skip_damaged: bool
) -> None:
    """Write all pixels, and behind them the places of damaged images, if these are skipped."""
    shape = (len(source.labels), 3, size, size)
    damaged: list[Damaged] = []
    # The file is written, not mapped, because then a full disk raises an error.
    with replacing(file) as temporary, temporary.open("wb") as target, ThreadPoolExecutor() as pool:
        _write_header(target, shape)
        done = 0
        for portion in source.portions():
            starts = range(0, len(portion), _TOGETHER)
            parts = [portion[start : start + _TOGETHER] for start in starts]
            results = pool.map(partial(_decoded, size=size, exactly=exactly), parts)
            for start, (decoded, bad) in zip(starts, results, strict=True):
                target.write(decoded.data)
                damaged += [Damaged(done + start + place, portion[start + place], why) for place, why in bad.items()]
            done += len(portion)
            report(progress, "decode", done, shape[0], words="images")
        if damaged and (not skip_damaged or len(damaged) == shape[0]):
            raise _error(source, damaged, shape[0])
        if skip_damaged:
            target.write(json.dumps({"damaged": [entry.place for entry in damaged]}).encode())


def _write_header(target: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(target, header)


def _decoded(part: Sequence[Encoded], size: int, *, exactly: bool) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Pixels, and the places of damaged images with the reasons."""
    from ofa_search.data.decoding import OtherSizeError, decode, reason

    pixels = np.zeros((len(part), 3, size, size), dtype=np.uint8)
    damaged = {}
    for place, encoded in enumerate(part):
        data = None
        try:
            data = encoded.read()
            pixels[place] = decode(data, size, exactly=exactly)
        except OtherSizeError:
            raise
        except Exception as error:  # a damaged file can make Pillow raise any error
            damaged[place] = reason(data, error)
    return pixels, damaged


def _error(source: Source, damaged: Sequence[Damaged], count: int) -> InputFileError:
    """One error that names all damaged images, or the first of very many."""
    remedy = "repair or remove {} (or train without: ofa-train --skip-damaged)"
    if len(damaged) == 1 < count:
        (entry,) = damaged
        return InputFileError(entry.encoded.path, f"{entry.why}; {remedy.format('it')}", row=entry.encoded.row)
    named = "; ".join(map(str, damaged[:_MOST_NAMED]))
    more = f"; and {len(damaged) - _MOST_NAMED} more" if len(damaged) > _MOST_NAMED else ""
    return InputFileError(
        source.path, f"{len(damaged)} of {count} images cannot be used: {named}{more}; {remedy.format('them')}"
    )


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
