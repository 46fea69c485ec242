"""The whole numbers in layers that change when units are removed: those of their fields, such as channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.layers import Layer
from ofa_search.pruning.groups import Counts, Dependencies
from ofa_search.pruning.latency.rules import (
    Example,
    NotLearned,
    Rule,
    axis_rules,
    joined_rules,
    learned_rules,
    number_at,
)

#: Node, field, and the position in a field of several numbers.
Spot = tuple[str, str, int]


@dataclass(frozen=True, eq=False)
class LayerTemplate:
    """The graph of the whole network, and the rules of the numbers in it that change."""

    graph: Graph
    full: Counts
    rules: Mapping[Spot, Rule]

    @staticmethod
    def learned(whole: Graph, dependencies: Dependencies, examples: Sequence[Example[Graph]]) -> LayerTemplate:
        """Learn rules that explain all sizes of all `examples`. Raises `NotLearned`."""
        if any(structure_of(each.model) != structure_of(whole) for each in examples):
            raise NotLearned("the exports have different layers")
        full = {group.name: group.n_units for group in dependencies.groups}
        named = axis_rules(dependencies)
        seen = [Example(each.counts, numbers_of(each.model)) for each in examples]
        rules = learned_rules(
            numbers_of(whole), full, seen, lambda spot: _likely_rules(spot[0], named), joined_rules(named)
        )
        return LayerTemplate(whole, full, rules)

    def at(self, counts: Counts) -> Graph:
        """The graph of the network cut to `counts`."""
        nodes = tuple(node._replace(layer=self._resized(node.name, node.layer, counts)) for node in self.graph.nodes)
        return replace(self.graph, nodes=nodes)

    def _resized(self, node: str, layer: Layer, counts: Counts) -> Layer:
        changed: dict[str, Any] = {}
        for name, numbers in _numbers(layer):
            new = [
                number_at(self.rules.get((node, name, i), {}), value, self.full, counts)
                for i, value in enumerate(numbers)
            ]
            if new != list(numbers):
                changed[name] = tuple(new) if isinstance(getattr(layer, name), tuple) else new[0]
        return replace(layer, **changed) if changed else layer


def numbers_of(graph: Graph) -> dict[Spot, int]:
    """All whole numbers that can be sizes."""
    return {
        (node.name, name, i): value
        for node in graph.nodes
        for name, numbers in _numbers(node.layer)
        for i, value in enumerate(numbers)
    }


def structure_of(graph: Graph) -> list[object]:
    """What two graphs that differ in sizes alone have in common."""
    return [[(node.name, node.inputs, _without_numbers(node.layer)) for node in graph.nodes], graph.outputs]


def _numbers(layer: Layer) -> Iterator[tuple[str, Sequence[int]]]:
    """The fields of whole numbers."""
    for field in fields(layer):
        value = getattr(layer, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        if numbers and all(type(number) is int for number in numbers):
            yield field.name, numbers


def _without_numbers(layer: Layer) -> list[object]:
    sizes = {name: len(numbers) for name, numbers in _numbers(layer)}
    return [type(layer), *(sizes.get(field.name, getattr(layer, field.name)) for field in fields(layer))]


def _likely_rules(node: str, named: Mapping[tuple[str, int], Rule]) -> Iterator[Rule]:
    """None, those of the weights of the node, and those of all other weights: concatenations have several groups."""
    yield {}
    yield from (named.get((f"{node}.weight", axis), {}) for axis in range(2))
    yield from named.values()
