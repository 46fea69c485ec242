"""The whole numbers in an ONNX file that change when units are removed, and the file with any of them removed.

They are sizes of weights, values of constants that are shapes, and attributes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ofa_profiler.models.onnx_graph import used_inside
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

if TYPE_CHECKING:
    import onnx

#: Constants of at most so many whole numbers can be shapes.
_MOST_NUMBERS = 64
#: After so many values, made-up weights repeat.
_PERIOD = 1009
_FLOATS = {1: np.float32, 10: np.float16, 11: np.float64}

#: ("dim", place, axis, 0) or ("value", place, position, 0) of a constant; ("attribute", node, name, position).
Spot = tuple[str, str | int, str | int, int]


@dataclass(frozen=True, eq=False)
class Template:
    """The export of the whole network, and the rules of the numbers in it that change."""

    model: onnx.ModelProto
    full: Counts
    numbers: Mapping[Spot, int]
    rules: Mapping[Spot, Rule]

    @staticmethod
    def learned(
        whole: onnx.ModelProto, dependencies: Dependencies, examples: Sequence[Example[onnx.ModelProto]]
    ) -> Template:
        """Learn rules that explain all sizes of all `examples`. Raises `NotLearned`."""
        full = {group.name: group.n_units for group in dependencies.groups}
        numbers = numbers_of(whole)
        named = _named_rules(whole, dependencies)
        if any(structure_of(each.model) != structure_of(whole) for each in examples):
            raise NotLearned("the exports have different operators")
        seen = [Example(each.counts, numbers_of(each.model)) for each in examples]
        rules = learned_rules(numbers, full, seen, lambda spot: _likely_rules(spot, whole, named), joined_rules(named))
        return Template(whole, full, numbers, rules)

    def at(self, counts: Counts) -> onnx.ModelProto:
        """The file of the network cut to `counts`, with made-up weights."""
        changed = {spot: number_at(rule, self.numbers[spot], self.full, counts) for spot, rule in self.rules.items()}
        model = type(self.model)()
        model.CopyFrom(self._bare)
        for position, node in enumerate(model.graph.node):
            for attribute in node.attribute:
                for i in range(len(attribute.ints)):
                    attribute.ints[i] = changed.get(("attribute", position, attribute.name, i), attribute.ints[i])
                if ("attribute", position, attribute.name, -1) in changed:
                    attribute.i = changed["attribute", position, attribute.name, -1]
        for tensor in self.model.graph.initializer:
            model.graph.initializer.append(_resized(tensor, changed))
        return model

    @property
    def _bare(self) -> onnx.ModelProto:
        """The file without weights, and without the shapes between its nodes."""
        model = type(self.model)()
        model.CopyFrom(self.model)
        del model.graph.initializer[:]
        del model.graph.value_info[:]
        return model


def separated(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same file with a constant of its own for each use, named by node, input and its name before.

    torch merges constants of equal values: shapes that are equal in the whole network differ in cut ones. Nodes and
    their outputs are named by their positions, because torch counts others that it drops, in cut networks others.
    """
    same = type(model)()
    same.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    del same.graph.initializer[:]
    for i, node in enumerate(same.graph.node):
        for position, name in enumerate(node.input):
            if name in constants:
                own = same.graph.initializer.add()
                own.CopyFrom(constants[name])
                node.input[position] = own.name = f"{i}.{position}:{name}"
    inside = {name for node in model.graph.node for name in used_inside(node)}
    kept = (inside | {output.name for output in model.graph.output}) & constants.keys()
    same.graph.initializer.extend(constants[name] for name in sorted(kept))
    _name_by_position(same, inside)
    return same


def _name_by_position(model: onnx.ModelProto, inside: Collection[str]) -> None:
    """Rename nodes and values. Inputs and outputs of the file keep their names, and what is used `inside` of a node."""
    graph = model.graph
    kept = {*inside, "", *(value.name for value in (*graph.input, *graph.output))}
    named: dict[str, str] = {}
    for i, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{i}"
        named |= {name: f"{node.name}_{j}" for j, name in enumerate(node.output) if name not in kept}
    for node in graph.node:
        node.input[:] = [named.get(name, name) for name in node.input]
        node.output[:] = [named.get(name, name) for name in node.output]
    del graph.value_info[:]


def name_before(name: str) -> str:
    """The name of a constant in the file before it was separated."""
    return name.partition(":")[2] or name


def _use_of(name: str) -> str:
    """Where a constant is used: what it was called before can differ between exports."""
    return name.partition(":")[0]


def numbers_of(model: onnx.ModelProto) -> dict[Spot, int]:
    """All whole numbers that can be sizes."""
    from onnx import numpy_helper

    found: dict[Spot, int] = {}
    for tensor in model.graph.initializer:
        found |= {("dim", _use_of(tensor.name), axis, 0): size for axis, size in enumerate(tensor.dims)}
        if tensor.data_type in (6, 7) and np.prod(tensor.dims, dtype=int) <= _MOST_NUMBERS:
            values = numpy_helper.to_array(tensor).ravel()
            found |= {("value", _use_of(tensor.name), i, 0): int(value) for i, value in enumerate(values)}
    for position, node in enumerate(model.graph.node):
        for attribute in node.attribute:
            found |= {("attribute", position, attribute.name, i): value for i, value in enumerate(attribute.ints)}
            if attribute.type == 2:  # a single whole number
                found["attribute", position, attribute.name, -1] = attribute.i
    return found


def structure_of(model: onnx.ModelProto) -> list[object]:
    """What two files that differ in sizes alone have in common."""
    nodes = [(node.op_type, tuple(map(_use_of, node.input)), tuple(node.output)) for node in model.graph.node]
    return [nodes, [(_use_of(tensor.name), tensor.data_type, len(tensor.dims)) for tensor in model.graph.initializer]]


def _named_rules(model: onnx.ModelProto, dependencies: Dependencies) -> dict[Spot, Rule]:
    """The rules of weights that have their names in the module."""
    names: dict[str, list[str]] = {}
    for tensor in model.graph.initializer:
        names.setdefault(name_before(tensor.name), []).append(_use_of(tensor.name))
    rules = axis_rules(dependencies)
    return {("dim", name, axis, 0): rule for (tensor, axis), rule in rules.items() for name in names.get(tensor, ())}


def _likely_rules(spot: Spot, model: onnx.ModelProto, named: Mapping[Spot, Rule]) -> Iterator[Rule]:
    """The rule of a weight, or for an attribute, those of the weights of its node: so depthwise convolutions get the
    number of their groups."""
    yield named.get(spot, {})
    if spot[0] == "attribute":
        read = set(map(_use_of, model.graph.node[int(spot[1])].input))
        yield from (rule for (kind, tensor, *_), rule in named.items() if kind == "dim" and tensor in read)


def _resized(tensor: onnx.TensorProto, changed: Mapping[Spot, int]) -> onnx.TensorProto:
    from onnx import numpy_helper

    dims = [changed.get(("dim", _use_of(tensor.name), axis, 0), size) for axis, size in enumerate(tensor.dims)]
    if tensor.data_type in _FLOATS and tensor.dims:
        return numpy_helper.from_array(made_up(tensor.name, dims, tensor.data_type), tensor.name)
    values = numpy_helper.to_array(tensor).copy()
    flat = values.reshape(-1)
    for i in range(min(flat.size, _MOST_NUMBERS)):
        spot = ("value", _use_of(tensor.name), i, 0)
        if spot in changed:
            flat[i] = changed[spot]
    return numpy_helper.from_array(values[tuple(map(slice, dims))], tensor.name)


def made_up(name: str, dims: Sequence[int], data_type: int) -> np.ndarray:
    """Weights that keep the size of activations, the same every time: a time must not depend on the training.

    Vectors are positive, because they can be variances. Values repeat, so that files can be compressed.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    generator = np.random.default_rng(seed)
    if len(dims) < 2:
        values = generator.uniform(0.1, 1.0, _PERIOD)
    else:
        bound = (6.0 / max(int(np.prod(dims[1:])), 1)) ** 0.5
        values = generator.uniform(-bound, bound, _PERIOD)
    return np.resize(values.astype(_FLOATS[data_type]), dims)


def with_made_up_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same file with made-up weights."""
    same = type(model)()
    same.CopyFrom(model)
    del same.graph.initializer[:]
    same.graph.initializer.extend(_resized(tensor, {}) for tensor in model.graph.initializer)
    return same
