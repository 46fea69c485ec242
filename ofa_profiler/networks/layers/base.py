"""The base class of layers, and the tables of backends.

A layer is a frozen dataclass with a name. It computes everything that follows from its fields. Each backend (torch,
an exporter, the elastic network) has a table with one entry per layer type.

Shapes have no batch, and channels come last: a map is (height, width, channels), a sequence (length, channels),
a vector (features,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from math import prod
from typing import Generic, TypeVar, cast

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.tensors import Shape, Span

#: Suffixes of statistics. A network stores them, but they are not trainable parameters.
_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Layer(ABC):
    """A layer of a network. `name` is unique in its op."""

    name: str

    def parameter_shapes(self) -> dict[str, Shape]:
        """Name -> shape, for the stored arrays (parameters, statistics), with axes in torch's order."""
        return {}

    @abstractmethod
    def output_shape(self, *inputs: Shape) -> Shape:
        """The shape of the output for inputs of these shapes."""

    def macs(self, *inputs: Shape) -> int:  # noqa: ARG002 - most layers have no matrix products
        """Multiply-accumulates of the matrix products for one image.

        As usual in papers, this excludes biases, norms, activations, pooling and the scaling of a squeeze-excite.
        """
        return 0

    def usual_spans(self, *inputs: Span) -> dict[str, Span]:
        """Name -> span of values, for the output ("") and the tensors inside that int8 needs to know.

        These are guesses for timing. Calibration finds those of a network (`ranges.py`).
        """
        return {"": inputs[0]}

    def params(self) -> int:
        """The number of trainable parameters."""
        shapes = self.parameter_shapes().items()
        return sum(prod(shape) for name, shape in shapes if not name.endswith(_STATISTICS))


class SameShape(Layer):
    """A layer whose output has the shape of its first input."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


def check_size(layer: Layer, what: str, given: int, needed: int) -> None:
    """Raise `UsageError` if an input has another number of channels or features than the layer."""
    if given != needed:
        raise UsageError(f"layer {layer.name} takes {needed} {what}, its input has {given}")


T = TypeVar("T")
E = TypeVar("E")


class LayerTable(Generic[T]):
    """Layer type -> entry of one backend, usually a function. `backend` names the backend in messages."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._entries: dict[type[Layer], T | str] = {}

    def register(self, layer_type: type[Layer]) -> Callable[[E], E]:
        """Decorator for the entry of `layer_type`. Raises `UsageError` if there is already one.

        A text `MODULE:NAME` in place of the entry is imported on first use: modules with torch take long to import.
        """

        def add(entry: E) -> E:
            if layer_type in self._entries:
                raise UsageError(f"{self.backend} already has an entry for the layer {layer_type.__name__}")
            self._entries[layer_type] = cast("T | str", entry)
            return entry

        return add

    def __getitem__(self, layer_type: type[Layer]) -> T:
        """The entry for `layer_type`. Raises `UsageError` if there is none."""
        entry = self._entries.get(layer_type)
        if entry is None:
            raise UsageError(f"{self.backend} has no entry for the layer {layer_type.__name__}")
        if isinstance(entry, str):
            module, _, name = entry.partition(":")
            entry = self._entries[layer_type] = cast("T", getattr(import_module(module), name))
        return entry

    def __iter__(self) -> Iterator[type[Layer]]:
        return iter(self._entries)
