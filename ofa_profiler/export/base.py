"""What an exporter is: from layers and weights to the bytes of a model that one runtime runs."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ofa_profiler.networks.op import Shape
from ofa_profiler.networks.parameters import Layout, Weights

#: Names of the input of every model, and of the output of an op's and of a network's.
INPUT_NAME = "input"
OP_OUTPUT_NAME = "output"
LOGITS_NAME = "logits"


@dataclass(frozen=True)
class Model:
    """A model file, ready to be run: `key` is an op's key or a network's name, `input_shape` includes the batch."""

    key: str
    path: Path
    sha256: str
    input_shape: Shape

    @staticmethod
    def from_file(key: str, path: Path, input_shape: Shape) -> Model:
        """The model in an existing file."""
        return Model(key, path, hashlib.sha256(path.read_bytes()).hexdigest(), input_shape)


class Exporter(ABC):
    """Builds models for one runtime. One layer that it does not know makes it refuse the whole model."""

    #: The name of the runtime, as in `--runtime`.
    runtime: str
    precisions: tuple[str, ...]
    suffix: str
    #: To be raised whenever the same op would give other bytes: cached models are then built anew.
    version: int

    @abstractmethod
    def build(
        self,
        layout: Layout,
        weights: Weights,
        *,
        batch: int,
        precision: str,
        output_name: str,
        metadata: Mapping[str, str],
    ) -> bytes:
        """The model of a network, or of an op as a network of one slot; the same bytes for the same arguments.

        The weights have been checked against the layout. Raises `UsageError` for what the runtime cannot do.
        """

    def input_shape(self, layout: Layout, batch: int) -> Shape:
        """The shape of the model's input, in the order of the runtime (here: batch, channels, height, width)."""
        return nchw(layout[0][1].input_shape, batch)


def nchw(shape: Shape, batch: int) -> Shape:
    """(height, width, channels) -> (batch, channels, height, width); (features,) -> (batch, features)."""
    return (batch, shape[-1], *shape[:-1])
