"""A model of a user: its inputs, what is timed of it, and its blocks.

    model = open_model(Path("net.onnx"))                  # formats.py; raises InputFileError
    feeds = feeds_for(model, shapes, arrays)              # inputs.py: values for each input
    whole, blocks = model.whole(feeds), model.blocks(feeds, this_machine=True)

A **kernel** is what the runtime executes as one: a node of the graph that onnxruntime makes of the file, or an operator
of a TFLite file. A **block** is a run of consecutive kernels, which is measured as a model of its own (`grouping.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.networks.op import Op
from ofa_profiler.networks.tensors import DTYPES, USUAL_SPAN, Span, TensorSpec

Array = NDArray[Any]

#: What a kernel costs without work, and the speeds of the estimate: those of a core of a PC.
_KERNEL_US, _MACS_PER_US, _BYTES_PER_US = 0.5, 40_000.0, 60_000.0
#: The share of a block's time from which on a second kind of layer is named.
_WORTH_NAMING = 0.2


@dataclass(frozen=True)
class ModelInput:
    """An input as the file declares it. Open dimensions have their names, or "?" if they have none."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    #: Valid values of an integer input, as far as the graph tells: the smallest, and the largest plus 1.
    range: tuple[int, int] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the shape has dimensions without a size."""
        return not all(isinstance(size, int) and size > 0 for size in self.shape)


def tensor_bytes(tensor: TensorSpec) -> int:
    """The bytes of a tensor."""
    return prod(tensor.shape) * np.dtype(tensor.dtype).itemsize


def spec_of(name: str, values: Array) -> TensorSpec:
    """The description of a tensor with these values."""
    return TensorSpec(name, values.dtype.name, tuple(values.shape))


def tensor_specs(values: Mapping[str, object]) -> tuple[TensorSpec, ...]:
    """Those values that can be described: tensors of numbers with elements."""
    return tuple(
        spec_of(name, np.asarray(value))
        for name, value in values.items()
        if isinstance(value, np.ndarray | np.generic) and value.size and value.dtype.name in DTYPES
    )


@dataclass(frozen=True, eq=False)
class Feed:
    """What an input gets while a model is timed. The shape of `tensor` is that in the file, with all sizes.

    Integers and truth values get exact `values`: they can be indices or lengths. Floats get random values in the `span`
    that they have in the network, unless the user gives values.
    """

    tensor: TensorSpec
    values: Array | None = None
    span: Span | None = None

    @staticmethod
    def exact(name: str, values: Array) -> Feed:
        """These values."""
        return Feed(spec_of(name, values), values)

    @staticmethod
    def like(name: str, values: Array) -> Feed:
        """Floats within the span of these values; exactly these values if they are no floats, or not finite."""
        if not np.issubdtype(values.dtype, np.floating) or not values.size or not np.isfinite(values).all():
            return Feed.exact(name, values)
        span = Span(float(values.min()), float(values.max()))
        return Feed(spec_of(name, values), span=span)

    def example(self, seed: int = 0) -> Array:
        """Its values, or random ones in its range or span, as the agent makes them."""
        if self.values is not None:
            return self.values
        generator, shape, dtype = np.random.default_rng(seed), self.tensor.shape, self.tensor.dtype
        if self.tensor.range is not None:
            return generator.integers(*self.tensor.range, shape).astype(dtype)
        return generator.uniform(*(self.span or USUAL_SPAN), shape).astype(dtype)


@dataclass(frozen=True, eq=False)
class TimedModel:
    """The bytes of a model file, and what its inputs get."""

    data: bytes = field(repr=False)
    feeds: tuple[Feed, ...]


@dataclass(frozen=True)
class Kernel:
    """One unit of execution. `name` is the runtime's, `kind` the name of its operator, like `FusedConv`.

    `macs` are multiply-accumulates, 0 for operators without any. `read_bytes` and `written_bytes` are those of all
    inputs (weights included) and outputs. `layer` is what people call it, like `DepthwiseConv`; empty if that is its
    kind, and None for what only changes a layout.
    """

    name: str
    kind: str
    macs: int
    read_bytes: int
    written_bytes: int
    layer: str | None = ""

    @property
    def estimated_us(self) -> float:
        """About its microseconds on one core of a PC. This only decides where to cut, and what a block is called."""
        return _KERNEL_US + self.macs / _MACS_PER_US + (self.read_bytes + self.written_bytes) / _BYTES_PER_US


@dataclass(frozen=True, eq=False)
class Block:
    """A run of consecutive kernels, as a model of its own.

    `name` is unique in the network and follows from the names in the file. Blocks with equal `signature` differ in
    nothing but names and the values of weights, so one of them is measured for all.
    """

    name: str
    kernels: tuple[Kernel, ...]
    #: Those inputs and outputs that other blocks or the network have; without weights. Shapes as in the file.
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weight_bytes: int
    signature: str
    model: TimedModel

    @cached_property
    def kind(self) -> str:
        """The layers that take most of its time, like `Conv+Add`: one, or two if the second takes a fifth of it."""
        shares: dict[str, float] = {}
        for kernel in self.kernels:
            if kernel.layer is not None:
                name = kernel.layer or kernel.kind
                shares[name] = shares.get(name, 0.0) + kernel.estimated_us
        order = sorted(shares, key=lambda name: (-shares[name], name))
        second = [name for name in order[1:2] if shares[name] >= _WORTH_NAMING * sum(shares.values())]
        return "+".join([*order[:1], *second]) or self.kernels[0].kind

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all kernels."""
        return sum(kernel.macs for kernel in self.kernels)

    @property
    def n_bytes(self) -> int:
        """Bytes of its weights, inputs and outputs: what it moves at least."""
        return self.weight_bytes + sum(map(tensor_bytes, (*self.inputs, *self.outputs)))

    @property
    def op(self) -> Op:
        """Its description in tables and journals."""
        attributes = {"macs": self.macs, "bytes": self.n_bytes, "kernels": len(self.kernels)}
        return Op(self.kind, self.inputs, self.outputs, attributes, self.name)


class Cutter(Protocol):
    """Cuts a network into blocks in more than one way."""

    @property
    def kernels(self) -> Sequence[Kernel]:
        """The kernels in order of execution."""

    def names(self) -> list[str]:
        """What a block that ends with each kernel is called; empty for a kernel that ends none."""

    def blocks(self, call_us: float | None = None) -> tuple[Block, ...]:
        """The blocks in order of execution.

        `call_us` is what one call of the runtime costs. With 0, blocks can be as short as a hundredth of the network.
        """

    def blocks_between(self, ends: Sequence[str]) -> tuple[Block, ...]:
        """The blocks that end with the kernels of these names, one for each, and the rest in the last one.

        So networks that differ in their sizes alone have the same blocks. A kernel that must not be cut off goes with
        the one before it. Raises `UsageError` if there is no such cut.
        """


class UserModel(ABC):
    """An opened model file. The file is never changed."""

    #: The name of the runtime that runs it.
    runtime: str
    path: Path
    #: `int8` if it computes convolutions or matrix products in integers, else `fp32`.
    precision: str
    inputs: tuple[ModelInput, ...]
    #: SHA-256 of all files that it consists of.
    sha256: str
    n_bytes: int

    @abstractmethod
    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network on this machine -> its outputs by name. Raises `UsageError` with the runtime's reason."""

    @abstractmethod
    def whole(self, feeds: Mapping[str, Array]) -> TimedModel:
        """The network as it is, as one file. Floats get exactly these values, too."""

    @abstractmethod
    def blocks(self, feeds: Mapping[str, Array], *, this_machine: bool) -> tuple[Block, ...]:
        """The blocks in order of execution.

        `this_machine`: they run here, so the cut may follow what the runtime does on this processor only. Otherwise it
        is the same on all machines. The same file and shapes give the same blocks. A single block is the network: it
        then cannot be cut. Raises `UsageError`.
        """

    @abstractmethod
    def cutter(self, feeds: Mapping[str, Array], *, this_machine: bool) -> Cutter:
        """What cuts the network. Raises `UsageError` if it cannot be cut at all."""
