"""Cuts the graph that onnxruntime made of a network: runs of its nodes as models of their own."""

from __future__ import annotations

import hashlib
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.models.base import Block, Feed, Kernel, TimedModel
from ofa_profiler.models.explained import REORDERS, plain_name
from ofa_profiler.models.grouping import group_kernels, groups_between
from ofa_profiler.models.names import printable, unique
from ofa_profiler.models.onnx_costs import layer_name, node_macs
from ofa_profiler.models.onnx_graph import STANDARD_DOMAINS, OnnxGraph, bodies, with_bodies
from ofa_profiler.models.onnx_session import run, session
from ofa_profiler.models.onnx_values import Fact
from ofa_profiler.networks.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx

#: What one call of onnxruntime costs, on one core of a PC.
CALL_US = 5.0
#: Small constants can be shapes, axes or indices: their values are part of what a block computes.
_SMALL_BYTES = 1024
#: Of longer names, the end tells most.
_LONGEST_NAME = 200

Group = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Cutter:
    """A graph and what is known of its tensors. Positions are those of its nodes."""

    graph: OnnxGraph
    facts: Mapping[str, Fact]
    #: Output of a convolution -> the shape of its weights, before a blocked layout padded it.
    weights: Mapping[str, Sequence[int]]

    def blocks(self, call_us: float | None = None) -> tuple[Block, ...]:
        """The blocks in order of execution; one if the network cannot be cut.

        Each distinct block has run once. A block that does not run alone is merged with the one before it.
        """
        # Changes of layout do not count, so that the blocks are about the same with and without them.
        counted = [replace(k, read_bytes=0, written_bytes=0) if k.kind in REORDERS else k for k in self.kernels]
        groups = list(group_kernels(counted, CALL_US if call_us is None else call_us, joined=self._joined))
        groups = [tuple(self._order[i] for i in group) for group in groups]
        known: dict[str, bool] = {}
        position = 0
        while position < len(groups):
            block = self._block(groups[position], "")
            if len(groups) > 1 and not (block is not None and self._runs(block, known)):
                first = max(0, position - 1)
                groups[first : first + 2] = [groups[first] + groups[first + 1]]
                position = first
            else:
                position += 1
        names = unique_names(self._name(group) for group in groups)
        blocks = [self._block(group, name) for group, name in zip(groups, names, strict=True)]
        return tuple(block for block in blocks if block is not None)

    def names(self) -> list[str]:
        """What a block of each kernel alone is called. Changes of layout have no name of their own."""
        return ["" if self.kernels[n].kind in REORDERS else self._name((i,)) for n, i in enumerate(self._order)]

    def blocks_between(self, ends: Sequence[str]) -> tuple[Block, ...]:
        """As in the base class."""
        groups = groups_between(self.names(), ends, self._joined)
        found = []
        for group, end in zip(groups, ends, strict=True):
            block = self._block(tuple(self._order[n] for n in group), end)
            if block is None:
                raise UsageError("the graph of onnxruntime cannot be cut into these blocks")
            found.append(block)
        return tuple(found)

    @cached_property
    def _order(self) -> list[int]:
        """The nodes that are kernels. Nodes of constants belong to each block that uses them."""
        return [i for i in range(len(self.graph.nodes)) if i not in self.graph.constant_nodes]

    @cached_property
    def _place(self) -> dict[int, int]:
        """Node -> its position among the kernels."""
        return {i: number for number, i in enumerate(self._order)}

    @cached_property
    def kernels(self) -> list[Kernel]:
        """The kernels in order of execution."""
        return [self._kernel(i) for i in self._order]

    @cached_property
    def _shapes(self) -> MutableMapping[str, Sequence[int]]:
        found: dict[str, Sequence[int]] = {name: list(t.dims) for name, t in self.graph.initializers.items()}
        return {**found, **{name: fact.shape for name, fact in self.facts.items()}}

    def _kernel(self, i: int) -> Kernel:
        node = self.graph.nodes[i]
        original = self.weights.get(plain_name(node.name, ""))
        shapes = self._shapes if original is None else ChainMap({node.input[1]: original}, self._shapes)
        return Kernel(
            node.name or node.op_type,
            node.op_type,
            node_macs(node, shapes),
            sum(map(self._n_bytes, self.graph.reads[i])),
            sum(map(self._n_bytes, filter(None, node.output))),
            None if node.op_type in REORDERS else layer_name(node, shapes),
        )

    def _n_bytes(self, name: str) -> int:
        if name in self.graph.initializers:
            return tensor_bytes(self.graph.initializers[name])
        return self.facts[name].n_bytes if name in self.facts else 0

    @cached_property
    def _joined(self) -> set[int]:
        """Positions among the kernels before which the network cannot be cut, or need not be."""
        kinds = [self.graph.nodes[i].op_type for i in self._order]
        joined = {n for n, kind in enumerate(kinds) if kind == REORDERS[1] or (n and kinds[n - 1] == REORDERS[0])}
        for name, made in self.graph.maker.items():
            if (
                made in self._place
                and name in self.graph.last_use
                and (name not in self.facts or not self.facts[name].feed)
            ):
                last = min(self.graph.last_use[name], len(self.graph.nodes) - 1)
                joined |= {self._place[i] for i in range(made + 1, last + 1) if i in self._place}
        return joined

    def _name(self, group: Group) -> str:
        """The name of the node that does most of the work."""
        most = max(
            group, key=lambda i: (self.kernels[self._place[i]].macs, self.kernels[self._place[i]].written_bytes, -i)
        )
        node = self.graph.nodes[most]
        if node.name and "Conv" not in node.op_type:
            return plain_name(node.name, "")
        # A convolution in a blocked layout is named after its output in the plain layout.
        output = node.name if node.name.endswith("_nchwc") else node.output[0]
        return plain_name(output, "").removesuffix("_output_0")

    def _block(self, group: Group, name: str) -> Block | None:
        """The model of some kernels; None if a tensor at its ends cannot be an input or output."""
        within = sorted({*group, *self._constant_makers(group)})
        nodes = [self.graph.nodes[i] for i in within]
        made = {output for node in nodes for output in node.output if output}
        read = list(dict.fromkeys(name for i in within for name in self.graph.reads[i] if name not in made))
        given = [name for name in read if name not in self.graph.initializers]
        constants = [self.graph.initializers[name] for name in read if name in self.graph.initializers]
        kernels = {output for i in group for output in self.graph.nodes[i].output if output}
        results = [name for name in kernels if self.graph.last_use.get(name, -1) > group[-1]]
        results = sorted(results, key=lambda name: (self.graph.maker[name], name)) or [nodes[-1].output[0]]
        ends = [self.facts.get(name) for name in (*given, *results)]
        feeds = [fact.feed for fact in ends if fact is not None and fact.feed is not None]
        if len(feeds) < len(ends):
            return None
        inputs, outputs = feeds[: len(given)], tuple(feed.tensor for feed in feeds[len(given) :])
        model = self._model(nodes, [feed.tensor for feed in inputs], outputs, constants)
        return Block(
            name,
            tuple(self.kernels[self._place[i]] for i in group),
            tuple(feed.tensor for feed in inputs),
            tuple(map(_plain, outputs)),
            sum(map(tensor_bytes, constants)),
            signature(model, inputs),
            TimedModel(model.SerializeToString(deterministic=True), tuple(inputs)),
        )

    def _constant_makers(self, group: Group) -> Iterator[int]:
        """The nodes that compute the constants which some nodes read."""
        for i in group:
            for name in self.graph.reads[i]:
                maker = self.graph.maker.get(name)
                if maker in self.graph.constant_nodes and maker not in group:
                    assert maker is not None
                    yield maker
                    yield from self._constant_makers((maker,))

    def _model(
        self,
        nodes: Sequence[onnx.NodeProto],
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        constants: Sequence[onnx.TensorProto],
    ) -> onnx.ModelProto:
        from onnx import helper

        def value(tensor: TensorSpec) -> onnx.ValueInfoProto:
            dtype = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
            return helper.make_tensor_value_info(tensor.name, dtype, tensor.shape)

        graph = helper.make_graph(nodes, "block", [*map(value, inputs)], [*map(value, outputs)], list(constants))
        # onnxruntime writes all sets of operators that it knows. An older one refuses a newer version, used or not.
        used = {*STANDARD_DOMAINS, *(node.domain for node in with_bodies(nodes))}
        imports = [each for each in self.graph.model.opset_import if each.domain in used]
        model = helper.make_model(graph, opset_imports=imports)
        model.ir_version, model.producer_name = self.graph.model.ir_version, ""
        return model

    def _runs(self, block: Block, known: dict[str, bool]) -> bool:
        """Whether a block runs alone. `known` are the answers for signatures."""
        if block.signature not in known:
            known[block.signature] = False
            with suppress(UsageError):
                opened = session(block.model.data)
                given = {feed.tensor.name: feed.example(seed) for seed, feed in enumerate(block.model.feeds)}
                run(opened, given, [output.name for output in block.outputs])
                known[block.signature] = {each.name for each in opened.get_inputs()} == set(given)
        return known[block.signature]


def _plain(tensor: TensorSpec) -> TensorSpec:
    return tensor._replace(range=None, span=None)


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """The bytes of a constant."""
    from onnx import helper

    return int(np.prod(tensor.dims, dtype=np.int64)) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def signature(model: onnx.ModelProto, inputs: Sequence[Feed] = ()) -> str:
    """A hash of everything but names, the values of weights, and those of large inputs.

    Small inputs can be sizes, limits or numbers of repetitions: with other values, a block takes another time.
    """
    from onnx import numpy_helper

    same = type(model)()
    same.CopyFrom(model)
    names: dict[str, str] = {"": ""}
    has_bodies = any(True for node in same.graph.node for _ in bodies(node))

    def rename(name: str) -> str:
        return names.setdefault(name, name if has_bodies else f"t{len(names)}")

    for value in same.graph.input:
        value.name = rename(value.name)
    for node in same.graph.node:
        node.name = node.doc_string = ""
        node.input[:] = map(rename, node.input)
        node.output[:] = map(rename, node.output)
    for value in same.graph.output:
        value.name = rename(value.name)
    constants = []
    for tensor in same.graph.initializer:
        exact = tensor.data_type not in (1, 10, 11, 16) and tensor_bytes(tensor) <= _SMALL_BYTES
        values = numpy_helper.to_array(tensor).tobytes() if exact else b""
        constants.append((rename(tensor.name), tensor.data_type, tuple(tensor.dims), values.hex()))
    del same.graph.initializer[:]
    digest = hashlib.sha256(same.SerializeToString(deterministic=True))
    digest.update(repr(sorted(constants)).encode())
    for feed in inputs:
        small = feed.values is not None and feed.values.nbytes <= _SMALL_BYTES
        digest.update(repr(feed.values.tolist() if small and feed.values is not None else None).encode())
    return digest.hexdigest()


def unique_names(names: Iterator[str]) -> list[str]:
    """Printable names that differ: the second of a name becomes `name#2`."""
    found: dict[str, None] = {}
    for name in names:
        plain = re.sub(r"\s+", " ", printable(name)).strip() or "block"
        plain = plain if len(plain) <= _LONGEST_NAME else f"...{plain[-_LONGEST_NAME:].strip()}"
        found[unique(plain, found)] = None
    return list(found)
