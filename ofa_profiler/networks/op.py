"""The op: the unit of profiling, as an open description.

An `Op` is what one row of a latency table measures: a stem, a block with its exact shapes, a classifier, or a block
of a user's model. It is plain data. Journals and kits contain it, so they can be read without the code that produced
the op. Search spaces are one source of ops. `register_block` registers the layers of a kind of op (`blocks.py` has
those of the search spaces). An op with the attribute `GRAPH` says its layers itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, NoReturn

from ofa_profiler.base.registry import Registry
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.op_graph import graph_from_text
from ofa_profiler.networks.tensors import Shape, TensorSpec

#: Types of attributes.
Scalar = str | int | float | bool
#: What no attribute may be called: tables keep the tensors of an op beside its attributes, under these names.
RESERVED = {"inputs", "outputs"}
#: The attribute with the layers of an op as JSON (`op_graph.py`), for kinds that are not registered.
GRAPH = "graph"


class _Attributes(dict[str, Scalar]):
    """A dict that cannot be changed: ops are shared."""

    def _refuse(self, *_arguments: Any, **_more: Any) -> NoReturn:
        raise TypeError("the attributes of an op cannot be changed")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


@dataclass(frozen=True)
class Op:
    """One profiled unit. `key` is its name in tables. `attributes` distinguish it from other ops of its `kind`."""

    kind: str = field(hash=False)
    inputs: tuple[TensorSpec, ...] = field(hash=False)
    outputs: tuple[TensorSpec, ...] = field(hash=False)
    attributes: Mapping[str, Scalar] = field(hash=False)
    key: str

    @property
    def input_shape(self) -> Shape:
        """The shape of the first input, without the batch, channels last."""
        return self.inputs[0].shape

    @property
    def output_shape(self) -> Shape:
        """The shape of the first output, without the batch, channels last."""
        return self.outputs[0].shape

    def __post_init__(self) -> None:
        if not self.inputs or not self.outputs:
            raise ValueError(f"op {self.key!r:.80}: an op has at least one input and one output")
        for text in (self.kind, self.key):
            if not text or text != text.strip() or not text.isprintable():
                raise ValueError(f"op {self.key!r:.80}: {text!r:.80} is not a plain text on one line")
        if reserved := self.attributes.keys() & RESERVED:
            raise ValueError(f"op {self.key!r:.80}: an attribute must not be named {min(reserved)!r}")
        object.__setattr__(self, "attributes", _Attributes(self.attributes))

    def __deepcopy__(self, _memo: dict[int, Any]) -> Op:
        return self  # it cannot change

    @cached_property
    def graph(self) -> Graph:
        """The layers of the op. Raises `UsageError` if its kind is not registered, or if they do not fit the op."""
        text = self.attributes.get(GRAPH)
        graph = graph_from_text(text, self.inputs) if isinstance(text, str) else _GRAPHS.get(self.kind)(self)
        given = [tensor.shape for tensor in graph.inputs], [graph.shapes[name] for name in graph.outputs]
        said = [tensor.shape for tensor in self.inputs], [tensor.shape for tensor in self.outputs]
        if given != said:
            raise UsageError(f"op {self.key}: its layers have inputs and outputs {given}, the op says {said}")
        return graph

    @property
    def boundary(self) -> int:
        """Number of elements of inputs and outputs, for one image."""
        return sum(prod(tensor.shape) for tensor in (*self.inputs, *self.outputs))

    @property
    def inside(self) -> int:
        """Number of elements of the tensors between its layers, for one image."""
        return sum(prod(shape) for shape in self.graph.shapes.values()) - self.boundary

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image; see `Layer.macs`."""
        return self.graph.macs

    @property
    def params(self) -> int:
        """Number of trainable parameters."""
        return self.graph.params

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types. `from_json` turns it into an equal op."""
        return {
            "key": self.key,
            "kind": self.kind,
            "inputs": [tensor.to_json() for tensor in self.inputs],
            "outputs": [tensor.to_json() for tensor in self.outputs],
            "attributes": dict(self.attributes),
        }

    @staticmethod
    def from_json(data: Any) -> Op:
        """Read the result of `to_json`. Raises `ValueError`."""
        if not isinstance(data, Mapping):
            raise ValueError("an op must be an object")
        for name in ("key", "kind"):
            if not isinstance(data.get(name), str) or not data[name]:
                raise ValueError(f"the {name} of an op must be a string")
        tensors: list[tuple[TensorSpec, ...]] = []
        for name in ("inputs", "outputs"):
            if not isinstance(data.get(name), list) or not data[name]:
                raise ValueError(f"the {name} of op {data['key']!r:.80} must be a list of tensors")
            tensors.append(tuple(map(TensorSpec.from_json, data[name])))
        inputs, outputs = tensors
        return Op(data["kind"], inputs, outputs, check_attributes(data.get("attributes")), data["key"])


def check_attributes(data: Any) -> dict[str, Scalar]:
    """Check the attributes of an op from JSON, and return them. Raises `ValueError`."""
    if not isinstance(data, Mapping):
        raise ValueError("the attributes of an op must be an object")
    for name, value in data.items():
        if not isinstance(name, str) or not isinstance(value, str | int | float | bool):
            raise ValueError(f"attribute {name!r:.80} must be a string, a number, true or false")
        json.dumps(value, allow_nan=False)  # refuses NaN and infinity
    return dict(data)


_GRAPHS: Registry[Callable[[Op], Graph]] = Registry("kind of op")


def register_block(kind: str) -> Callable[[Callable[[Op], Graph]], Callable[[Op], Graph]]:
    """Decorator for the function that returns the layers of an op of this kind. Raises `UsageError` if it exists."""

    def add(build: Callable[[Op], Graph]) -> Callable[[Op], Graph]:
        _GRAPHS.add(kind, build)
        return build

    return add
