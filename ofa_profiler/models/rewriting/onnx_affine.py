"""onnxruntime: constant scales and shifts around a convolution become part of its weights.

Batch normalization is often exported as arithmetic: Mul and Add with scalars or with a value per channel, sometimes
behind a Transpose. onnxruntime merges only few of these ways. The others cost a pass over the map each, and on x86 two
changes of its blocked layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ofa_profiler.models.base import Array
from ofa_profiler.models.onnx_graph import attributes
from ofa_profiler.models.rewriting.base import Pattern, Site
from ofa_profiler.models.rewriting.onnx_document import OnnxDocument

_ARITHMETIC = ("Add", "Sub", "Mul", "Div")


@dataclass(frozen=True, eq=False)
class Affine:
    """x -> scale * x + shift, for each channel."""

    scale: Array
    shift: Array

    @staticmethod
    def neutral(channels: int) -> Affine:
        """x -> x."""
        return Affine(np.ones(channels), np.zeros(channels))

    @property
    def is_finite(self) -> bool:
        """Whether all numbers are finite."""
        return bool(np.isfinite(self.scale).all() and np.isfinite(self.shift).all())

    def then(self, other: Affine) -> Affine:
        """This one first."""
        return Affine(self.scale * other.scale, self.shift * other.scale + other.shift)


def affine_of(document: OnnxDocument, node: onnx.NodeProto, tensor: str, axis: int, shape: tuple[int, ...]) -> Affine:
    """What `node` does to each channel of `tensor`.

    `shape` has the number of channels at `axis`, and 1 elsewhere. Raises `ValueError` if the node does something else.
    """
    channels = shape[axis]
    if node.op_type == "BatchNormalization":
        return _normalization(document, node, channels)
    if node.op_type not in _ARITHMETIC or list(node.input).count(tensor) != 1:
        raise ValueError
    is_first = node.input[0] == tensor
    values = document.constant(node.input[1 if is_first else 0])
    if values is None or values.dtype != np.float32 or values.ndim > len(shape):
        raise ValueError
    aligned = values.reshape((1,) * (len(shape) - values.ndim) + values.shape)
    if any(size not in (1, full) for size, full in zip(aligned.shape, shape, strict=True)):
        raise ValueError
    operand = np.broadcast_to(aligned, shape).reshape(channels).astype(np.float64)
    ones, zeros = np.ones(channels), np.zeros(channels)
    if node.op_type == "Add":
        return Affine(ones, operand)
    if node.op_type == "Sub":
        return Affine(ones, -operand) if is_first else Affine(-ones, operand)
    if node.op_type == "Div" and not is_first:
        raise ValueError
    return Affine(1 / operand if node.op_type == "Div" else operand, zeros)


def _normalization(document: OnnxDocument, node: onnx.NodeProto, channels: int) -> Affine:
    found = attributes(node)
    parts = [document.constant(name) for name in node.input[1:5]]
    known = [part.astype(np.float64) for part in parts if part is not None and part.shape == (channels,)]
    if len(known) != 4 or len(node.output) > 1 or found.get("training_mode", 0) or not found.get("spatial", 1):
        raise ValueError
    gamma, beta, mean, variance = known
    scale = gamma / np.sqrt(variance + found.get("epsilon", 1e-5))
    return Affine(scale, beta - mean * scale)


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution with constant weights of float32: (out channels, in channels of a group, kernel)."""

    node: onnx.NodeProto
    weight: Array
    bias: Array
    groups: int

    @staticmethod
    def of(document: OnnxDocument, node: onnx.NodeProto) -> Convolution | None:
        """The convolution of a node; None if its weights are no constants of float32."""
        weight = document.constant(node.input[1])
        if weight is None or weight.dtype != np.float32 or weight.ndim < 3:
            return None
        has_bias = len(node.input) > 2 and node.input[2]
        bias = document.constant(node.input[2]) if has_bias else np.zeros(weight.shape[0], np.float32)
        if bias is None or bias.shape != weight.shape[:1]:
            return None
        return Convolution(node, weight.astype(np.float64), bias.astype(np.float64), attributes(node).get("group", 1))

    @property
    def is_padded(self) -> bool:
        """Whether it reads zeros at the border."""
        found = attributes(self.node)
        return any(found.get("pads", ())) or found.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")

    def written(self, document: OnnxDocument, tensor: str, weight: Array, bias: Array) -> list[onnx.NodeProto]:
        """The nodes of the same convolution of `tensor` with other weights. The last is the convolution."""
        stem = self.node.output[0]
        constants = [
            document.constant_node(f"{stem}_{part}", values.astype(np.float32))
            for part, values in (("weight", weight), ("bias", bias))
        ]
        node = onnx.NodeProto.FromString(self.node.SerializeToString())
        node.input[:] = [tensor, *(constant.output[0] for constant in constants)]
        return [*constants, node]


@dataclass(frozen=True, eq=False)
class _After(Site):
    """All nodes behind the convolution, up to the last affine one. `kept` are those that are written again."""

    convolution: Convolution
    nodes: tuple[onnx.NodeProto, ...]
    kept: tuple[onnx.NodeProto, ...]
    affine: Affine


class AffineAfterConv(Pattern[OnnxDocument, _After]):
    """Scales and shifts of the result of a convolution, also behind Transpose or a Cast that changes nothing."""

    name, runtime, kinds = "scale and shift after a convolution", "onnxruntime", ("Conv",)

    def site(self, document: OnnxDocument, operator: onnx.NodeProto) -> _After | None:
        convolution = Convolution.of(document, operator)
        return None if convolution is None else _behind(document, convolution)

    def edit(self, document: OnnxDocument, site: _After) -> None:
        convolution, affine = site.convolution, site.affine
        scale = affine.scale.reshape(-1, *(1,) * (convolution.weight.ndim - 1))
        bias = convolution.bias * affine.scale + affine.shift
        new = convolution.written(document, convolution.node.input[0], convolution.weight * scale, bias)
        for kept in site.kept:
            node = onnx.NodeProto.FromString(kept.SerializeToString())
            node.input[0] = new[-1].output[0]
            new.append(node)
        new[-1].output[0] = site.place
        document.replace([convolution.node, *site.nodes], new)


def _behind(document: OnnxDocument, convolution: Convolution) -> _After | None:
    rank, axis, channels = convolution.weight.ndim, 1, convolution.weight.shape[0]
    tensor, total = convolution.node.output[0], Affine.neutral(channels)
    nodes: list[onnx.NodeProto] = []
    passed: list[onnx.NodeProto] = []
    length = kept = 0
    while (node := document.reader(tensor)) is not None and len(node.output) == 1:
        if node.op_type == "Transpose":
            axis = list(attributes(node).get("perm", reversed(range(rank)))).index(axis)
            passed.append(node)
        elif node.op_type == "Cast" and attributes(node)["to"] == onnx.TensorProto.FLOAT:
            passed.append(node)
        else:
            shape = tuple(channels if i == axis else 1 for i in range(rank))
            try:
                total = total.then(affine_of(document, node, tensor, axis, shape))
            except ValueError:
                break
            length, kept = len(nodes) + 1, len(passed)
        nodes.append(node)
        tensor = node.output[0]
    chain = nodes[:length]
    if not chain or not total.is_finite or (len(chain) == 1 and _is_merged(document, chain[0], channels)):
        return None
    return _After(chain[-1].output[0], convolution, tuple(chain), tuple(passed[:kept]), total)


def _is_merged(document: OnnxDocument, node: onnx.NodeProto, channels: int) -> bool:
    """Whether onnxruntime itself merges this node into the convolution before it."""
    if node.op_type == "BatchNormalization":
        return True
    return node.op_type in ("Add", "Mul") and any(
        values is not None and values.size == channels > 1 for values in map(document.constant, node.input)
    )


@dataclass(frozen=True, eq=False)
class _Before(Site):
    convolution: Convolution
    nodes: tuple[onnx.NodeProto, ...]
    tensor: str
    affine: Affine


class AffineBeforeConv(Pattern[OnnxDocument, _Before]):
    """Scales and shifts of the input of a convolution without padding."""

    name, runtime, kinds = "scale and shift before a convolution", "onnxruntime", ("Conv",)

    def site(self, document: OnnxDocument, operator: onnx.NodeProto) -> _Before | None:
        convolution = Convolution.of(document, operator)
        return None if convolution is None or convolution.is_padded else _in_front(document, convolution)

    def edit(self, document: OnnxDocument, site: _Before) -> None:
        convolution, groups = site.convolution, site.convolution.groups
        weight = convolution.weight
        per_group = weight.shape[0] // groups
        scale, shift = (
            np.repeat(values.reshape(groups, -1), per_group, axis=0)
            for values in (site.affine.scale, site.affine.shift)
        )
        sums = weight.reshape(*weight.shape[:2], -1).sum(axis=2)
        bias = convolution.bias + (sums * shift).sum(axis=1)
        scaled = weight * scale.reshape(*scale.shape, *(1,) * (weight.ndim - 2))
        document.replace([*site.nodes, convolution.node], convolution.written(document, site.tensor, scaled, bias))


def _in_front(document: OnnxDocument, convolution: Convolution) -> _Before | None:
    rank, channels = convolution.weight.ndim, convolution.weight.shape[1] * convolution.groups
    shape = tuple(channels if i == 1 else 1 for i in range(rank))
    total = Affine.neutral(channels)
    nodes: list[onnx.NodeProto] = []
    tensor = convolution.node.input[0]
    while (node := document.made_by(tensor, *_ARITHMETIC)) is not None and document.is_inner(tensor):
        variable = [name for name in node.input if document.constant(name) is None]
        # A tensor with one channel or fewer axes could become larger by the constant.
        known = document.shape(variable[0]) if len(variable) == 1 else None
        try:
            if known is None or len(known) != rank or known[1] != channels:
                break
            total = affine_of(document, node, variable[0], 1, shape).then(total)
        except ValueError:
            break
        nodes.insert(0, node)
        tensor = variable[0]
    if not nodes or not total.is_finite:
        return None
    return _Before(convolution.node.output[0], convolution, tuple(nodes), tensor, total)
