"""What a layer is, and the tables from layer types to what a backend makes of them.

A layer is data: a frozen dataclass with a name. Everything that follows from its fields alone is computed by
itself; what a backend (torch, an exporter, the elastic network) makes of it is one function in that backend's table.

Shapes have no batch, and channels come last: a map is (height, width, channels), a sequence (length, channels),
a vector (features,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Generic, TypeVar

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.tensors import Shape

#: Statistics, not parameters: they are stored with a network and not learned by gradients.
_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Layer(ABC):
    """A step of a network. `name` is unique in its op."""

    name: str

    def parameter_shapes(self) -> dict[str, Shape]:
        """The arrays that it stores (parameters, statistics) by name, in torch's order of axes."""
        return {}

    @abstractmethod
    def output_shape(self, *inputs: Shape) -> Shape:
        """The shape of its output for inputs of these shapes."""

    def macs(self, *inputs: Shape) -> int:  # noqa: ARG002 - most layers multiply nothing
        """Multiply-accumulates of its matrix products for one image.

        Biases, norms, activations, pooling and the scaling of a squeeze-excite are not counted, as in the
        papers of the field.
        """
        return 0

    def params(self) -> int:
        """The number of trainable parameters."""
        shapes = self.parameter_shapes().items()
        return sum(prod(shape) for name, shape in shapes if not name.endswith(_STATISTICS))


class SameShape(Layer):
    """A layer whose output has the shape of its first input."""

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


T = TypeVar("T")


class LayerTable(Generic[T]):
    """From a layer type to what one backend makes of it."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._entries: dict[type[Layer], T] = {}

    def register(self, layer_type: type[Layer]) -> Callable[[T], T]:
        """As a decorator: the entry for `layer_type`. Raises `UsageError` if there is one already."""

        def add(entry: T) -> T:
            if layer_type in self._entries:
                raise UsageError(f"{self.backend} has an entry for the layer {layer_type.__name__} already")
            self._entries[layer_type] = entry
            return entry

        return add

    def __getitem__(self, layer_type: type[Layer]) -> T:
        """The entry for `layer_type`. Raises `UsageError` where the backend has none."""
        try:
            return self._entries[layer_type]
        except KeyError:
            raise UsageError(f"{self.backend} has no entry for the layer {layer_type.__name__}") from None

    def __iter__(self) -> Iterator[type[Layer]]:
        return iter(self._entries)
