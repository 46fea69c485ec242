"""Networks that can be edited, and ideas: where a kind of change is possible in them.

A tensor of a net has an identifier, which is not always its name in the file. An **axis** is a tensor and the position
of one of its dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ofa_profiler.models.base import Array
from ofa_profiler.networks.tensors import Shape

#: A tensor, and a dimension of it from 0.
Axis = tuple[str, int]


@dataclass(frozen=True, eq=False)
class Node:
    """An operator. Inputs that are left out are ""."""

    index: int
    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    raw: Any = field(repr=False)

    @property
    def given(self) -> tuple[str, ...]:
        """Its inputs, without those left out."""
        return tuple(name for name in self.inputs if name)


@dataclass(frozen=True)
class Ties:
    """Which axes of the tensors of an operator have the same size whatever it is, and which must keep theirs."""

    equal: tuple[tuple[Axis, ...], ...] = ()
    kept: tuple[Axis, ...] = ()


@dataclass(frozen=True)
class Depthwise:
    """A depthwise convolution whose kernel can lose a border. `weight` is a constant; it is square, or has one axis."""

    weight: str
    kernel_size: int
    settings: str


class Editor(ABC):
    """A copy of a network that changes."""

    @abstractmethod
    def replace_by_relu(self, nodes: Sequence[Node], x: str, y: str) -> None:
        """`y` becomes ReLU of `x`; the nodes that compute it now disappear."""

    @abstractmethod
    def shrink_kernel(self, node: Node) -> None:
        """A depthwise kernel loses its border, and the padding as much, so that the output keeps its shape."""

    @abstractmethod
    def resize(self, axes: Sequence[Axis], size: int) -> None:
        """The axes get a size. Constants repeat their values."""

    @abstractmethod
    def data(self) -> bytes:
        """The edited file."""


class Net(ABC):
    """A network that can be edited."""

    nodes: tuple[Node, ...]
    #: Tensors that must stay as they are: inputs and outputs of the network, and those that inner graphs use.
    kept: frozenset[str]

    @abstractmethod
    def constant(self, tensor: str) -> Array | None:
        """The values of a constant tensor."""

    @abstractmethod
    def shape(self, tensor: str) -> Shape | None:
        """Its shape; None if unknown."""

    @abstractmethod
    def function(self, node: Node) -> Callable[..., Array] | None:
        """What an elementwise operator computes from its inputs, in numpy; None for other operators."""

    @abstractmethod
    def depthwise(self, node: Node) -> Depthwise | None:
        """The depthwise convolution of a node; None if it is none, or if its kernel cannot lose a border."""

    @abstractmethod
    def channel_axes(self, node: Node) -> tuple[Axis, ...]:
        """The axes of the weights of a convolution or matrix product that are its channels, in and out."""

    @abstractmethod
    def ties(self, node: Node) -> Ties | None:
        """Which sizes an operator ties together; None if all of its tensors must keep their shapes."""

    @abstractmethod
    def edit(self) -> Editor:
        """A copy of the network to be edited."""

    @abstractmethod
    def output_shapes(self, data: bytes) -> dict[str, Shape]:
        """Run an edited file on this machine -> the shapes of its outputs. Raises `UsageError`."""

    @cached_property
    def maker(self) -> dict[str, Node]:
        """Tensor -> the node that computes it."""
        return {name: node for node in self.nodes for name in node.outputs}

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """Tensor -> the nodes that read it."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.given):
                found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}


@dataclass(frozen=True, eq=False)
class Place:
    """A place where a change is possible. Places of equal `signature` are changed together.

    `work` says how much there is to save at most, in numbers that are moved or computed: it only orders the attempts.
    """

    what: str
    name: str
    signature: tuple[object, ...]
    work: float
    apply: Callable[[Editor], None] = field(repr=False)


class Idea(ABC):
    """A kind of change."""

    @abstractmethod
    def places(self, net: Net) -> Iterator[Place]:
        """Where it is possible."""


def ties_of_elementwise(net: Net, node: Node) -> Ties | None:
    """Of an operator whose output has the size of its inputs, or that broadcasts them; None if a shape is unknown."""
    output = net.shape(node.outputs[0])
    if output is None:
        return None
    axes: list[list[Axis]] = [[(node.outputs[0], i)] for i in range(len(output))]
    for name in node.given:
        shape = net.shape(name)
        if shape is None:
            return None
        for i, size in enumerate(shape):
            place = i + len(output) - len(shape)
            if size == output[place]:
                axes[place].append((name, i))
    return Ties(tuple(map(tuple, axes)))


def ties_of_axes(node: Node, pairs: Sequence[tuple[int, int]]) -> Ties:
    """Of an operator that leaves some axes of its first input alone: pairs of axes of input and output."""
    return Ties(tuple(((node.inputs[0], a), (node.outputs[0], b)) for a, b in pairs))


def repeated(values: Array, axis: int, size: int) -> Array:
    """An array with another size of an axis, filled with its own values."""
    return np.ascontiguousarray(np.take(values, np.arange(size) % values.shape[axis], axis=axis))
