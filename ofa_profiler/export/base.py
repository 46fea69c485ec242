"""What an exporter is: from layers and weights to the bytes of a model that one runtime runs."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.networks.tensors import Shape, TensorSpec
from ofa_profiler.protocol.target import Target

#: Names of the output of an op's model and of a network's.
OP_OUTPUT_NAME = "output"
LOGITS_NAME = "logits"


@dataclass(frozen=True)
class Model:
    """A model file, ready to be run.

    `key` is an op's key or a network's name. `inputs` are those of the file: their shapes include the batch and have
    the runtime's order of axes.
    """

    key: str
    path: Path
    sha256: str
    inputs: tuple[TensorSpec, ...]

    @staticmethod
    def from_file(key: str, path: Path, inputs: Sequence[TensorSpec]) -> Model:
        """The model in an existing file."""
        return Model(key, path, hashlib.sha256(path.read_bytes()).hexdigest(), tuple(inputs))


class Exporter(ABC):
    """Builds models in one file format. One layer that it does not know makes it refuse the whole model."""

    #: For messages.
    format: str
    precisions: tuple[str, ...]
    #: To be raised whenever the same op would give other bytes: cached models are then built anew.
    version: int

    @abstractmethod
    def build(
        self,
        graph: Graph,
        weights: Weights,
        target: Target,
        *,
        outputs: Sequence[str],
        metadata: Mapping[str, str],
    ) -> bytes:
        """The model of a network, or of one op; the same bytes for the same arguments. `outputs` names its outputs.

        The weights have been checked against the graph. Raises `UsageError` for what the format cannot hold.
        """

    def check(self, target: Target) -> None:
        """Raise `UsageError` for a precision that this exporter cannot write."""
        if target.precision not in self.precisions:
            supported = ", ".join(self.precisions)
            raise UsageError(
                f"precision {target.precision!r} is not supported with {target.runtime}; supported are {supported}"
            )

    def inputs(self, graph: Graph, batch: int) -> tuple[TensorSpec, ...]:
        """The inputs of the model file, in the order of axes of the runtime (here: batch, channels, height, width)."""
        return tuple(tensor._replace(shape=nchw(tensor.shape, batch)) for tensor in graph.inputs)


def nchw(shape: Shape, batch: int) -> Shape:
    """With the batch, and with the channels of a map in front: (H, W, C) -> (N, C, H, W), (T, C) -> (N, T, C)."""
    return (batch, shape[-1], *shape[:-1]) if len(shape) == 3 else (batch, *shape)
