"""Writes a model for timing to files, as a kit needs it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ofa_profiler.base.files import write_bytes
from ofa_profiler.models.base import Feed, TimedModel
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.model_file import Model


def timed_model(key: str, timed: TimedModel, suffix: str, folder: Path) -> Model:
    """Write the bytes of a model and the exact values of its inputs into `folder`, in files named by their hashes.

    `suffix` is that of the format, like `.onnx`. Existing files are kept, so the folder is a cache. Raises `UsageError`
    if a file cannot be written.
    """
    path = _written(timed.data, suffix, folder)
    values = {feed.tensor.name: _written(_raw(feed), ".bin", folder) for feed in timed.feeds if feed.values is not None}
    return Model(key, path, path.stem, tuple(map(_described, timed.feeds)), values)


def _described(feed: Feed) -> TensorSpec:
    return feed.tensor if feed.values is not None else feed.tensor._replace(span=feed.span)


def _raw(feed: Feed) -> bytes:
    """The elements in C order, little-endian. Raises `ValueError` if they do not fit the description."""
    values, tensor = feed.values, feed.tensor
    assert values is not None
    if values.dtype.name != tensor.dtype or values.shape != tensor.shape:
        words = f"{values.dtype.name} {list(values.shape)}, but it is {tensor.dtype} {list(tensor.shape)}"
        raise ValueError(f"the values of {tensor.name!r:.80} are {words}")
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def _written(data: bytes, suffix: str, folder: Path) -> Path:
    path = folder / f"{hashlib.sha256(data).hexdigest()}{suffix}"
    if not path.is_file() or path.stat().st_size != len(data):
        write_bytes(path, data)
    return path
