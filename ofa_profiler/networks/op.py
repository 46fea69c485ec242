"""The op: the unit that is profiled, as an open description.

An `Op` is what one row of a latency table measures: a stem, a block with its exact shapes, a classifier, or a block
of somebody's own model. It is plain data that travels: a journal and a kit carry it, so whoever reads them needs not
know where it came from. A search space is one producer of ops; what the ops of a kind compute is registered with
`register_block` (`blocks.py` has the kinds of the search spaces).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.tensors import Shape, TensorSpec

#: What an attribute may be.
Scalar = str | int | float | bool


@dataclass(frozen=True)
class Op:
    """One profiled unit. `key` names it in tables, `attributes` hold what else tells it from others of its kind."""

    kind: str = field(hash=False)
    inputs: tuple[TensorSpec, ...] = field(hash=False)
    outputs: tuple[TensorSpec, ...] = field(hash=False)
    attributes: Mapping[str, Scalar] = field(hash=False)
    key: str

    @property
    def input_shape(self) -> Shape:
        """The shape of its first input."""
        return self.inputs[0].shape

    @property
    def output_shape(self) -> Shape:
        """The shape of its first output."""
        return self.outputs[0].shape

    @cached_property
    def graph(self) -> Graph:
        """Its layers. Raises `UsageError` for an op of a kind that is not registered."""
        if self.kind not in _GRAPHS:
            raise UsageError(f"op {self.key}: the layers of ops of the kind {self.kind!r} are not known")
        return _GRAPHS[self.kind](self)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image (`Layer.macs`)."""
        return self.graph.macs

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return self.graph.params

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types; `from_json` reads it back to an equal op."""
        return {
            "key": self.key,
            "kind": self.kind,
            "inputs": [tensor.to_json() for tensor in self.inputs],
            "outputs": [tensor.to_json() for tensor in self.outputs],
            "attributes": dict(self.attributes),
        }

    @staticmethod
    def from_json(data: Any) -> Op:
        """Read what `to_json` gives. Raises `ValueError`."""
        if not isinstance(data, Mapping):
            raise ValueError("an op must be an object")
        for name in ("key", "kind"):
            if not isinstance(data.get(name), str) or not data[name]:
                raise ValueError(f"the {name} of an op must be a text")
        tensors: list[tuple[TensorSpec, ...]] = []
        for name in ("inputs", "outputs"):
            if not isinstance(data.get(name), list) or not data[name]:
                raise ValueError(f"the {name} of op {data['key']!r:.80} must be a list of tensors")
            tensors.append(tuple(map(TensorSpec.from_json, data[name])))
        inputs, outputs = tensors
        return Op(data["kind"], inputs, outputs, check_attributes(data.get("attributes")), data["key"])


def check_attributes(data: Any) -> dict[str, Scalar]:
    """The attributes of an op, from JSON. Raises `ValueError`."""
    if not isinstance(data, Mapping):
        raise ValueError("the attributes of an op must be an object")
    for name, value in data.items():
        if not isinstance(name, str) or not isinstance(value, str | int | float | bool):
            raise ValueError(f"attribute {name!r:.80} must be a text, a number, true or false")
        json.dumps(value, allow_nan=False)  # a number must be one that JSON can hold
    return dict(data)


_GRAPHS: dict[str, Callable[[Op], Graph]] = {}


def register_block(kind: str) -> Callable[[Callable[[Op], Graph]], Callable[[Op], Graph]]:
    """As a decorator: the function that gives the layers of ops of that kind. Raises `UsageError` for a known kind."""

    def add(build: Callable[[Op], Graph]) -> Callable[[Op], Graph]:
        if kind in _GRAPHS:
            raise UsageError(f"a block of the kind {kind!r} is registered already")
        _GRAPHS[kind] = build
        return build

    return add


def has_layers(kind: str) -> bool:
    """Whether the layers of ops of that kind are known."""
    return kind in _GRAPHS
