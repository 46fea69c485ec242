"""Models of users as files for a kit: their bytes and the exact values of inputs, named by their hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ofa_profiler.base.files import write_bytes
from ofa_profiler.models.base import TimedModel
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.forms import Forms


@dataclass(frozen=True)
class TimedFile:
    """A model for a kit (`protocol.kit.ModelFile`)."""

    key: str
    path: Path
    sha256: str
    inputs: tuple[TensorSpec, ...]
    #: Input -> the file with its exact values: raw little-endian numbers in C order.
    values: Mapping[str, Path]
    variants: Mapping[Forms, TimedFile] = field(default_factory=dict)
    encodings: Mapping[str, TimedFile] = field(default_factory=dict)


def timed_model(key: str, timed: TimedModel, suffix: str, folder: Path) -> TimedFile:
    """Write a model into `folder`, unless its files are there already. Raises `UsageError` if that is impossible."""
    path, sha256 = _kept(timed.data, suffix, folder)
    inputs, values = [], {}
    for feed in timed.feeds:
        inputs.append(feed.tensor._replace(span=feed.span))
        if feed.values is not None:
            data = np.ascontiguousarray(feed.values)
            values[feed.tensor.name] = _kept(data.astype(data.dtype.newbyteorder("<")).tobytes(), ".bin", folder)[0]
    return TimedFile(key, path, sha256, tuple(inputs), values)


def _kept(data: bytes, suffix: str, folder: Path) -> tuple[Path, str]:
    sha256 = hashlib.sha256(data).hexdigest()
    path = folder / f"{sha256}{suffix}"
    if not path.is_file() or path.stat().st_size != len(data):
        write_bytes(path, data)
    return path, sha256
