"""A model for a kit: its file, and what its inputs get."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ofa_profiler.base import files
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.forms import Forms


@dataclass(frozen=True)
class Model:
    """A model file.

    `key` is the key of an op or the name of a network. The shapes of `inputs` are those in the file: with the batch,
    and with axes in the order of the runtime.
    """

    key: str
    path: Path
    sha256: str
    inputs: tuple[TensorSpec, ...]
    #: Files with the exact values of inputs, by the name of the input: the elements in C order, little-endian. The name
    #: of a file is the SHA-256 of its content and `.bin`. The other inputs get values by their descriptions.
    values: Mapping[str, Path] = field(default_factory=dict, compare=False)
    #: The same model in other forms.
    variants: Mapping[Forms, Model] = field(default_factory=dict, compare=False)
    #: The same model in all encodings of int8.
    encodings: Mapping[str, Model] = field(default_factory=dict, compare=False)

    @staticmethod
    def from_file(key: str, path: Path, inputs: Sequence[TensorSpec]) -> Model:
        """The model in an existing file, with its hash. Raises `OSError`."""
        return Model(key, path, hashlib.sha256(path.read_bytes()).hexdigest(), tuple(inputs))

    def packed(self) -> Model:
        """The same model, compressed: its file is replaced by one that ends in .gz. Raises `UsageError`.

        Models for timing have repeating weights, so the whole networks of a space shrink from gigabytes to megabytes.
        """
        path = self.path.with_name(f"{self.path.name}.gz")
        files.write_bytes(path, gzip.compress(self.path.read_bytes(), compresslevel=1, mtime=0))
        self.path.unlink()
        return replace(self, path=path)
