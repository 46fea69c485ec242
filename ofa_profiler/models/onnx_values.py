"""The tensors between the nodes of a network: run once, and described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ofa_profiler.models.base import Array, Feed, spec_of
from ofa_profiler.models.onnx_graph import OnnxGraph
from ofa_profiler.models.onnx_session import run, session
from ofa_profiler.networks.tensors import DTYPES, TensorSpec

if TYPE_CHECKING:
    import onnx

#: Floats of at most so many numbers can be sizes, scales or limits, which decide what is computed.
_FEW = 16
#: 8-bit integers of more numbers are activations, whose values do not matter for the time.
_MANY = 4096


@dataclass(frozen=True)
class Fact:
    """A tensor: how it is fed to a block, or None if it cannot be an input (a sequence, no elements)."""

    shape: tuple[int, ...]
    n_bytes: int
    feed: Feed | None

    @property
    def tensor(self) -> TensorSpec | None:
        """Its description, if it can be an input or output of a block."""
        return None if self.feed is None else self.feed.tensor


def capture(graph: OnnxGraph, feeds: Mapping[str, Array]) -> dict[str, Fact]:
    """Run the graph on this machine with every tensor as an output -> what each is. Raises `UsageError`."""
    opened = session(_with_all_outputs(graph).SerializeToString(), level="ORT_DISABLE_ALL", what="its optimised graph")
    names = [output.name for output in opened.get_outputs()]
    values = {**run(opened, feeds, names), **feeds}
    return {name: _fact(name, value) for name, value in values.items()}


def _with_all_outputs(graph: OnnxGraph) -> onnx.ModelProto:
    model = type(graph.model)()
    model.CopyFrom(graph.model)
    known = set(graph.outputs)
    for node in graph.nodes:
        for name in node.output:
            if name and name not in known:
                model.graph.output.add().name = name
                known.add(name)
    return model


def _fact(name: str, value: object) -> Fact:
    if not isinstance(value, np.ndarray) or value.dtype.name not in DTYPES or not value.size:
        shape = tuple(value.shape) if isinstance(value, np.ndarray) else ()
        return Fact(shape, 0, None)
    return Fact(tuple(value.shape), value.nbytes, _feed(name, value))


def _feed(name: str, value: Array) -> Feed:
    if value.dtype.kind == "f" and value.size <= _FEW:
        return Feed.exact(name, value)
    if value.dtype.itemsize == 1 and value.dtype.kind in "iu" and value.size > _MANY:
        return Feed(spec_of(name, value)._replace(range=(int(value.min()), int(value.max()) + 1)))
    return Feed.like(name, value)
