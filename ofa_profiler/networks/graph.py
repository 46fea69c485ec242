"""A network as a small graph of layers. A chain is its simplest case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.layers import Add, Layer
from ofa_profiler.networks.tensors import Shape, TensorSpec

#: The input of a graph that has one.
INPUT = "input"

V = TypeVar("V")


class Node(NamedTuple):
    """A layer in a graph, and the names of what it reads: inputs of the graph, or nodes before it."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """Nodes in the order in which they run, and the names of those whose outputs are the graph's."""

    inputs: tuple[TensorSpec, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    @staticmethod
    def chain(layers: Iterable[Layer], shape: Shape) -> Graph:
        """Layers that run one after the other on a float32 input of that shape."""
        return Graph.with_shortcut(tuple(layers), shape, None, "")

    @staticmethod
    def with_shortcut(
        layers: Iterable[Layer], shape: Shape, shortcut: Iterable[Layer] | None, activation: str
    ) -> Graph:
        """A chain to whose output its input is added, after the layers of `shortcut`; None: nothing is added."""
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
        """Graphs one after the other as one: outputs become the next one's inputs, names get `PART.` in front.

        Raises `UsageError` where shapes do not fit.
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
                raise UsageError(f"{part} takes inputs of the shapes {needed}, what comes before it gives {shapes}")
            names = {tensor.name: source for tensor, source in zip(graph.inputs, sources, strict=True)}
            for node in graph.nodes:
                names[node.name] = f"{part}.{node.name}" if part else node.name
                nodes.append(Node(names[node.name], node.layer, tuple(names[source] for source in node.inputs)))
            sources = tuple(names[output] for output in graph.outputs)
            shapes = tuple(graph.shapes[output] for output in graph.outputs)
        return Graph(first or (), tuple(nodes), sources)

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of every input and of every node's output."""
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
        """Trainable parameters."""
        return sum(node.layer.params() for node in self.nodes)

    @cached_property
    def parameter_shapes(self) -> Mapping[str, Shape]:
        """Every array that the network stores, `NODE.NAME`, and its shape."""
        return {
            f"{node.name}.{name}": shape for node in self.nodes for name, shape in node.layer.parameter_shapes().items()
        }

    @cached_property
    def branches(self) -> tuple[tuple[Node, ...], ...]:
        """The chains that meet in the addition at the end, the main one first; one where nothing is added."""
        named = {node.name: node for node in self.nodes}

        def chain(name: str) -> tuple[Node, ...]:
            node = named.get(name)
            return () if node is None else (*chain(node.inputs[0]), node)

        last = named[self.outputs[0]]
        return tuple(map(chain, last.inputs)) if isinstance(last.layer, Add) else (chain(last.name),)

    def run(self, inputs: Mapping[str, V], run_node: Callable[..., V]) -> tuple[V, ...]:
        """The outputs, where `run_node(node, *values)` runs one node."""
        values: dict[str, Any] = dict(inputs)
        for node in self.nodes:
            values[node.name] = run_node(node, *(values[source] for source in node.inputs))
        return tuple(values[name] for name in self.outputs)
