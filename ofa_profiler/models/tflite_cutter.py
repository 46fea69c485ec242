"""Makes the blocks of a TFLite graph: groups its kernels, and joins blocks that do not run alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.models.base import Array, Block, Feed, Kernel, TimedModel
from ofa_profiler.models.grouping import group_kernels, groups_between
from ofa_profiler.models.names import printable, unique
from ofa_profiler.models.tflite_blocks import Part, part_of, signature_of, weight_bytes, written
from ofa_profiler.models.tflite_costs import operator_macs
from ofa_profiler.models.tflite_cut import constant_makers, joined_operators
from ofa_profiler.models.tflite_file import TfliteFile
from ofa_profiler.models.tflite_runtime import is_delegated, prepared
from ofa_profiler.networks.tensors import DTYPES, Shape, TensorSpec

#: One call of the runtime with a single small operator on a core of a PC.
CALL_US = 2.0


@dataclass(frozen=True, eq=False)
class Seen:
    """What a run of the network shows: shapes of all tensors, feeds for tensors that blocks can get, fixed values."""

    shapes: Mapping[int, Shape]
    feeds: Mapping[int, Feed]
    fixed: Mapping[int, Array]


class Cutter:
    """Makes blocks of a graph. `delegated`: XNNPACK runs a part of the network, so it must run a part of each block."""

    def __init__(self, file: TfliteFile, seen: Seen, *, delegated: bool) -> None:
        self.file = file
        self.seen = seen
        self.delegated = delegated
        self.helpers = constant_makers(file)
        unpacking = set(self.helpers.values())
        self.order = [i for i in range(len(file.operators)) if i not in unpacking] or list(range(len(file.operators)))
        self.kernels = [self._kernel(position) for position in self.order]
        self.runs: dict[str, bool] = {}

    def _kernel(self, position: int) -> Kernel:
        operator, tensors = self.file.operators[position], self.file.tensors
        shapes = [self.seen.shapes.get(i) if i >= 0 else None for i in operator.inputs]
        output = self.seen.shapes.get(operator.outputs[0], ()) if operator.outputs else ()
        name = printable(tensors[operator.outputs[-1]].name) if operator.outputs else ""
        read, wrote = (sum(map(self._bytes, found)) for found in (operator.given, operator.outputs))
        return Kernel(name or operator.kind, operator.kind, operator_macs(operator.kind, shapes, output), read, wrote)

    def _bytes(self, i: int) -> int:
        tensor = self.file.tensors[i]
        if tensor.is_constant:
            return len(tensor.data)
        size = np.dtype(tensor.dtype).itemsize if tensor.dtype in DTYPES else 1
        return prod(self.seen.shapes.get(i, ())) * size

    def _is_carried(self, i: int) -> bool:
        feed = self.seen.feeds.get(i)
        return feed is not None and feed.tensor.dtype in DTYPES and all(feed.tensor.shape)

    @cached_property
    def _joined(self) -> frozenset[int]:
        """Positions among the kernels before which the network cannot be cut."""
        return joined_operators(self.file, self.order, self._is_carried, self.seen.fixed)

    def names(self) -> list[str]:
        """As in the base class: a block is called like its last kernel."""
        return [kernel.name for kernel in self.kernels]

    def blocks(self, call_us: float | None = None) -> tuple[Block, ...]:
        """The blocks. Those that do not run alone have been joined with a neighbour."""
        least_us = CALL_US if call_us is None else call_us
        groups = [list(group) for group in group_kernels(self.kernels, least_us, joined=self._joined)]
        found: list[Block] = []
        taken: dict[str, Block] = {}
        while groups:
            group = groups.pop(0)
            block = self._block(group, taken)
            if block is not None and self._runs(block):
                found.append(block)
                taken[block.name] = block
            elif groups:
                groups[0] = [*group, *groups[0]]
            elif found:
                before = found.pop()
                del taken[before.name]
                groups.append([*range(group[0] - len(before.kernels), group[0]), *group])
        return tuple(found)

    def blocks_between(self, ends: Sequence[str]) -> tuple[Block, ...]:
        """As in the base class."""
        found = []
        for group, end in zip(groups_between(self.names(), ends, self._joined), ends, strict=True):
            block = self._block(group, {})
            if block is None:
                raise UsageError("the graph of LiteRT cannot be cut into these blocks")
            found.append(replace(block, name=end))
        return tuple(found)

    def _runs(self, block: Block) -> bool:
        """Whether this machine runs the block. The agent refuses one of which XNNPACK runs nothing."""
        if block.signature not in self.runs:
            feeds = {feed.tensor.name: feed.example() for feed in block.model.feeds}
            try:
                interpreter = prepared(block.model.data, feeds)
                interpreter.invoke()
                self.runs[block.signature] = is_delegated(interpreter) or not self.delegated
            except (ValueError, RuntimeError):
                self.runs[block.signature] = False
        return self.runs[block.signature]

    def _block(self, group: Sequence[int], taken: Mapping[str, Block]) -> Block | None:
        """The block of these kernels. None if it gets or gives nothing that a model can have."""
        seen = self.seen
        part = part_of(self.file, [self.order[i] for i in group], self.helpers, seen.fixed)
        if not part.inputs or not all(map(self._is_carried, (*part.inputs, *part.outputs))):
            return None
        names = part.names()
        feeds = tuple(replace(seen.feeds[i], tensor=seen.feeds[i].tensor._replace(name=names[i])) for i in part.inputs)
        model = TimedModel(written(self.file, part, seen.shapes, seen.fixed), feeds)
        signature = signature_of(self.file, part, seen.shapes, seen.fixed, feeds)
        return self._named(group, part, model, signature, taken)

    def _named(
        self, group: Sequence[int], part: Part, model: TimedModel, signature: str, taken: Mapping[str, Block]
    ) -> Block:
        kernels = tuple(self.kernels[i] for i in group)
        name = unique(kernels[-1].name, taken)
        inputs, outputs = (tuple(self._spec(i) for i in found) for found in (part.inputs, part.outputs))
        return Block(name, kernels, inputs, outputs, weight_bytes(self.file, part), signature, model)

    def _spec(self, i: int) -> TensorSpec:
        feed = self.seen.feeds.get(i)
        tensor = self.file.tensors[i]
        return TensorSpec(tensor.name, tensor.dtype, feed.tensor.shape if feed else self.seen.shapes.get(i, ()))

    def single(self, whole: TimedModel) -> Block:
        """The network as its only block."""
        every = tuple(range(len(self.file.operators)))
        part = Part(every, self.file.inputs, self.file.outputs, tuple(range(len(self.file.tensors))))
        signature = hashlib.sha256(whole.data).hexdigest()
        return self._named(range(len(self.kernels)), part, whole, signature, {})
