"""A graph of layers as plain JSON: what an op carries whose layers no code but itself describes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.networks import layers
from ofa_profiler.networks.graph import Graph, Node
from ofa_profiler.networks.tensors import TensorSpec

#: Name -> type, for the layers that a graph can have.
_TYPES: Mapping[str, type[layers.Layer]] = {
    name: found
    for name in layers.__all__
    if issubclass(found := getattr(layers, name), layers.Layer) and found is not layers.Layer
}


def graph_to_json(graph: Graph) -> list[Any]:
    """The nodes as `[name, type of layer, its fields unless they have their default, inputs]`.

    Inputs and outputs are those of the op: the output is the last node.
    """
    if graph.outputs != (graph.nodes[-1].name,):
        raise ValueError("only a graph whose output is its last node can be an op of its own")
    return [[node.name, type(node.layer).__name__, _fields(node.layer), list(node.inputs)] for node in graph.nodes]


def _fields(layer: layers.Layer) -> dict[str, Any]:
    values = {each.name: (getattr(layer, each.name), each.default) for each in fields(layer) if each.name != "name"}
    return {name: value for name, (value, default) in values.items() if default is MISSING or value != default}


@lru_cache(maxsize=1 << 14)
def graph_from_text(text: str, inputs: tuple[TensorSpec, ...]) -> Graph:
    """The graph of an op with these inputs, from the JSON of `graph_to_json`. Raises `UsageError`."""
    try:
        nodes = tuple(_node(*each) for each in json.loads(text))
        graph = Graph(inputs, nodes, (nodes[-1].name,))
        graph.shapes  # noqa: B018 - wrong inputs raise here
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise UsageError(f"the layers of an op are not as this version writes them: {error}") from None
    return graph


def _node(name: str, kind: str, values: dict[str, Any], inputs: list[str]) -> Node:
    return Node(name, _TYPES[kind](name, **{key: _frozen(value) for key, value in values.items()}), tuple(inputs))


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
