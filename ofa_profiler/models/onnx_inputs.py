"""The inputs that an ONNX model declares, and which integers are valid for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_profiler.errors import InputFileError
from ofa_profiler.models.base import ModelInput
from ofa_profiler.models.onnx_graph import integer, with_bodies
from ofa_profiler.networks.tensors import DTYPES

if TYPE_CHECKING:
    import onnx

_LOOKUPS = ("Gather", "GatherElements")
#: Operators that pass indices on, or the rows of a table.
_PASSING = {
    "Cast",
    "Clip",
    "Concat",
    "Expand",
    "Flatten",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
}
#: Operators that keep the shape of a constant table.
_SAME_SHAPE = {"Add", "Cast", "DequantizeLinear", "Identity", "Mul", "QuantizeLinear", "Sub"}


def declared_inputs(path: Path, model: onnx.ModelProto) -> tuple[ModelInput, ...]:
    """The inputs without those that are constants, as in files of IR version 3. Raises `InputFileError`."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return tuple(_declared(path, model, value) for value in model.graph.input if value.name not in constants)


def _declared(path: Path, model: onnx.ModelProto, value: onnx.ValueInfoProto) -> ModelInput:
    from onnx import helper

    which = f"its input {value.name!r:.80}"
    if not value.type.HasField("tensor_type"):
        kind = (value.type.WhichOneof("value") or "no tensor").removesuffix("_type").replace("_", " ")
        raise InputFileError(path, f"{which} is no tensor but of the kind {kind!r}, which is not supported")
    tensor = value.type.tensor_type
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except (KeyError, TypeError):
        dtype = f"of the type {tensor.elem_type}"
    if dtype not in DTYPES:
        what = "text" if dtype in ("object", "str") else dtype
        raise InputFileError(path, f"{which} is {what}, which is not supported")
    if not tensor.HasField("shape"):
        raise InputFileError(path, f"{which} has no shape, not even an open one; declare its dimensions in the file")
    shape = tuple(
        size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else size.dim_param or "?"
        for size in tensor.shape.dim
    )
    limits = _index_range(model.graph, value.name) if dtype in ("int32", "int64") else None
    return ModelInput(value.name, dtype, shape, limits)


def _index_range(graph: onnx.GraphProto, name: str) -> tuple[int, int] | None:
    """The valid indices, if an input is looked up in tables of known size: those of the smallest table."""
    nodes = list(with_bodies(graph.node))
    shapes = _constant_shapes(graph, nodes)
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for used in node.input:
            users.setdefault(used, []).append(node)
    rows, waiting, seen = [], deque([name]), {name}
    while waiting:
        tensor = waiting.popleft()
        for node in users.get(tensor, []):
            if node.op_type in _LOOKUPS and len(node.input) > 1 and node.input[1] == tensor:
                rows += _rows(node, shapes.get(node.input[0]))
            elif _passes(node, tensor) and node.output[0] not in seen:
                seen.add(node.output[0])
                waiting.append(node.output[0])
    return (0, min(rows)) if rows else None


def _passes(node: onnx.NodeProto, tensor: str) -> bool:
    """Whether the numbers of a tensor are those of the first output of a node."""
    return node.op_type in _PASSING and (node.input[0] == tensor or node.op_type == "Concat")


def _rows(node: onnx.NodeProto, shape: Sequence[int] | None) -> list[int]:
    axis = integer(node, "axis")
    if shape is None or not -len(shape) <= axis < len(shape) or shape[axis] < 1:
        return []
    return [shape[axis]]


def _constant_shapes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> dict[str, Sequence[int]]:
    """Shapes of constants, and of what is computed from a constant without a change of shape, like dequantized ones."""
    shapes: dict[str, Sequence[int]] = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in nodes:
        value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            shapes[node.output[0]] = list(value.dims)
        elif node.op_type in _SAME_SHAPE and all(name in shapes for name in node.input if name):
            shapes[node.output[0]] = max((shapes[name] for name in node.input if name), key=_size)
    return shapes


def _size(shape: Sequence[int]) -> tuple[int, int]:
    return prod(shape), len(shape)
