"""A graph of layers under construction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import chain, count

import numpy as np

from ofa_profiler.networks.graph import Graph, Node
from ofa_profiler.networks.layers import Layer
from ofa_profiler.networks.parameters import Array
from ofa_profiler.networks.tensors import Shape, TensorSpec
from ofa_search.pruning.conversion.steps import Step, Value


def channels_last(shape: Shape) -> Shape:
    """A shape of torch with batch as one of our graphs, without."""
    _, *sizes = shape
    return (*sizes[1:], sizes[0]) if len(sizes) == 3 else tuple(sizes)


class Draft:
    """Nodes in the order of execution. Weights are float64, so that merging layers rounds only once."""

    def __init__(self, inputs: Mapping[str, Shape]) -> None:
        self.inputs = inputs
        self.nodes: dict[str, Node] = {}
        self.weights: dict[str, Array] = {}
        #: The shapes of all tensors, channels last.
        self.shapes: dict[str, Shape] = {name: channels_last(shape) for name, shape in inputs.items()}
        self.outputs: tuple[str, ...] = ()

    def add(
        self, step: Step, make: Callable[[str], Layer], *inputs: Value, shape: Shape | None = None, **weights: Array
    ) -> Value:
        """Add the layer `make(name)` of an operator. Its output has the shape of the step, unless given.

        `weights` have `_` for `.` in their names. Raises `UsageError` if torch's shape is another one.
        """
        name = self._unused(step.layer or step.operator, step.operator)
        layer, torch_shape = make(name), step.shape if shape is None else shape
        found = layer.output_shape(*(channels_last(value.shape) for value in inputs))
        if found != channels_last(torch_shape):
            step.refuse(f"its output is {torch_shape}, that of {type(layer).__name__} would be {found}")
        self.nodes[name] = Node(name, layer, tuple(value.name for value in inputs))
        self.shapes[name] = found
        self.weights |= {f"{name}.{part.replace('_', '.')}": value for part, value in weights.items()}
        return Value(name, torch_shape)

    def _unused(self, name: str, operator: str) -> str:
        """A name for a node: that of the module, with the operator if the module has several."""
        taken = {*self.nodes, *self.inputs}
        candidates = chain((name, f"{name}.{operator}"), (f"{name}.{operator}_{number}" for number in count(2)))
        return next(each for each in candidates if each not in taken)

    def readers(self) -> Counter[str]:
        """How often each tensor is read, by nodes and as an output."""
        return Counter([source for node in self.nodes.values() for source in node.inputs] + list(self.outputs))

    def replace(self, name: str, layer: Layer) -> None:
        """Put another layer in the place of one."""
        self.nodes[name] = self.nodes[name]._replace(layer=layer)

    def remove_unread(self) -> None:
        """Remove all nodes that nothing reads."""
        for name in reversed(list(self.nodes)):
            if not self.readers()[name]:
                self.remove(name)

    def remove(self, name: str) -> Node:
        """Remove a node with its weights."""
        node = self.nodes.pop(name)
        for part in node.layer.parameter_shapes():
            del self.weights[f"{name}.{part}"]
        return node

    def drop(self, name: str) -> None:
        """Remove a node with one input. Its readers then read its input."""
        (source,) = self.remove(name).inputs

        def renamed(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(source if each == name else each for each in names)

        self.nodes = {key: node._replace(inputs=renamed(node.inputs)) for key, node in self.nodes.items()}
        self.outputs = renamed(self.outputs)

    def finished(self) -> tuple[Graph, dict[str, Array]]:
        """The graph, and its weights as float32."""
        inputs = tuple(TensorSpec(name, "float32", channels_last(shape)) for name, shape in self.inputs.items())
        weights = {name: np.ascontiguousarray(value, np.float32) for name, value in self.weights.items()}
        return Graph(inputs, tuple(self.nodes.values()), self.outputs), weights
