"""A network as a small graph of layers. The simplest graph is a chain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.layers import Add, Layer
from ofa_profiler.networks.tensors import Shape, TensorSpec

#: Name of the input of a graph with one input.
INPUT = "input"

V = TypeVar("V")


class Node(NamedTuple):
    """A layer in a graph. `inputs` are names of graph inputs or of earlier nodes."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """Nodes in the order of execution. `outputs` names the nodes whose outputs are those of the graph."""

    inputs: tuple[TensorSpec, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    @staticmethod
    def chain(layers: Iterable[Layer], shape: Shape) -> Graph:
        """A chain of layers with one float32 input of this shape."""
        return Graph.with_shortcut(tuple(layers), shape, None, "")

    @staticmethod
    def with_shortcut(
        layers: Iterable[Layer], shape: Shape, shortcut: Iterable[Layer] | None, activation: str
    ) -> Graph:
        """A chain of layers with a shortcut: output = activation(layers(input) + shortcut(input)).

        An empty `shortcut` is the identity. If it is None, nothing is added.
        """
        nodes: list[Node] = []

        def run(branch: Iterable[Layer]) -> str:
            source = INPUT
            for layer in branch:
                nodes.append(Node(layer.name, layer, (source,)))
                source = layer.name
            return source

        output = run(layers)
        if shortcut is not None:
            nodes.append(Node("shortcut", Add("shortcut", activation), (output, run(shortcut))))
            output = "shortcut"
        return Graph((TensorSpec(INPUT, "float32", shape),), tuple(nodes), (output,))

    @staticmethod
    def joined(parts: Iterable[tuple[str, Graph]]) -> Graph:
        """Several graphs in sequence as one graph. The outputs of each are the inputs of the next.

        `parts` are (name, graph). Nodes get the prefix `NAME.`. Raises `UsageError` if shapes differ.
        """
        first: tuple[TensorSpec, ...] | None = None
        nodes: list[Node] = []
        sources: tuple[str, ...] = ()
        shapes: tuple[Shape, ...] = ()
        for part, graph in parts:
            if first is None:
                first, sources = graph.inputs, tuple(tensor.name for tensor in graph.inputs)
            elif shapes != tuple(tensor.shape for tensor in graph.inputs):
                needed = tuple(tensor.shape for tensor in graph.inputs)
                raise UsageError(f"{part} needs inputs of the shapes {needed}, but the part before it returns {shapes}")
            names = {tensor.name: source for tensor, source in zip(graph.inputs, sources, strict=True)}
            for node in graph.nodes:
                names[node.name] = f"{part}.{node.name}" if part else node.name
                nodes.append(Node(names[node.name], node.layer, tuple(names[source] for source in node.inputs)))
            sources = tuple(names[output] for output in graph.outputs)
            shapes = tuple(graph.shapes[output] for output in graph.outputs)
        return Graph(first or (), tuple(nodes), sources)

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Name -> shape, for all inputs and the outputs of all nodes."""
        shapes = {tensor.name: tensor.shape for tensor in self.inputs}
        for node in self.nodes:
            shapes[node.name] = node.layer.output_shape(*(shapes[source] for source in node.inputs))
        return shapes

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates for one image; see `Layer.macs`."""
        return sum(node.layer.macs(*(self.shapes[source] for source in node.inputs)) for node in self.nodes)

    @cached_property
    def params(self) -> int:
        """Number of trainable parameters."""
        return sum(node.layer.params() for node in self.nodes)

    @cached_property
    def parameter_shapes(self) -> Mapping[str, Shape]:
        """`NODE.NAME` -> shape, for all arrays that the network stores."""
        return {
            f"{node.name}.{name}": shape for node in self.nodes for name, shape in node.layer.parameter_shapes().items()
        }

    @cached_property
    def branches(self) -> tuple[tuple[Node, ...], ...]:
        """The branches of the final addition, main branch first; a single chain if there is no addition."""
        named = {node.name: node for node in self.nodes}

        def chain(name: str) -> tuple[Node, ...]:
            node = named.get(name)
            return () if node is None else (*chain(node.inputs[0]), node)

        last = named[self.outputs[0]]
        return tuple(map(chain, last.inputs)) if isinstance(last.layer, Add) else (chain(last.name),)

    def run(self, inputs: Mapping[str, V], run_node: Callable[..., V]) -> tuple[V, ...]:
        """Run all nodes with `run_node(node, *values)` and return the outputs."""
        values: dict[str, Any] = dict(inputs)
        for node in self.nodes:
            values[node.name] = run_node(node, *(values[source] for source in node.inputs))
        return tuple(values[name] for name in self.outputs)
