"""A user's ONNX model."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.models.base import Array, Block, Feed, ModelInput, TimedModel, UserModel
from ofa_profiler.models.onnx_blocks import Cutter
from ofa_profiler.models.onnx_graph import OnnxGraph, used_by
from ofa_profiler.models.onnx_reading import LARGEST_BYTES, read_onnx
from ofa_profiler.models.onnx_session import optimized_graph, run, session
from ofa_profiler.models.onnx_values import capture
from ofa_profiler.networks.tensors import DTYPES

if TYPE_CHECKING:
    import onnx

#: Operators that compute convolutions and matrix products in integers.
_INTEGERS = {
    "ConvInteger",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
}
_HEAVY = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
#: Operators that pass indices on.
_PASSING = {"Cast", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}


class OnnxModel(UserModel):
    """An ONNX file, opened. Its external data are brought into it."""

    runtime = "onnxruntime"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model, self.sha256, self.n_bytes = read_onnx(path)
        self._data = _bytes_of(path, self.model)
        try:
            self._session = session(self._data)
        except UsageError as error:
            raise InputFileError(path, str(error)) from error
        self.inputs = _inputs(path, self.model)
        self.precision = _precision(self.model)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network on this machine -> its outputs by name. Raises `UsageError` with the runtime's reason."""
        return run(self._session, feeds, [output.name for output in self._session.get_outputs()], self.path.name)

    def whole(self, feeds: Mapping[str, Array]) -> TimedModel:
        """The network as it is, with its external data inside."""
        return TimedModel(self._data, tuple(Feed.exact(name, array) for name, array in feeds.items()))

    def blocks(self, feeds: Mapping[str, Array], *, this_machine: bool) -> tuple[Block, ...]:
        """The blocks of the graph that onnxruntime makes of the network, in order of execution.

        For this machine, its changes of layout are part of it. A network that cannot be cut is one block.
        """
        plain = OnnxGraph(optimized_graph(self._data, "ORT_ENABLE_EXTENDED"))
        graph = OnnxGraph(optimized_graph(self._data, "ORT_ENABLE_ALL")) if this_machine else plain
        return Cutter(graph, capture(graph, feeds), plain.convolution_weights).blocks()


def _bytes_of(path: Path, model: onnx.ModelProto) -> bytes:
    try:
        data: bytes = model.SerializeToString(deterministic=True)
    except Exception as error:  # protobuf has errors of several kinds for messages that are too large
        raise InputFileError(path, "has more than 2 GB of weights, which is not supported") from error
    if len(data) > LARGEST_BYTES:
        raise InputFileError(path, "has more than 2 GB of weights, which is not supported")
    return data


def _inputs(path: Path, model: onnx.ModelProto) -> tuple[ModelInput, ...]:
    """The inputs without those that are constants, as in files of IR version 3. Raises `InputFileError`."""
    from onnx import helper

    constants = {tensor.name for tensor in model.graph.initializer}
    found = []
    for value in model.graph.input:
        if value.name in constants:
            continue
        if not value.type.HasField("tensor_type"):
            raise InputFileError(path, f"its input {value.name!r:.80} is no tensor, which is not supported")
        tensor = value.type.tensor_type
        try:
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        except (KeyError, TypeError):
            dtype = f"of the type {tensor.elem_type}"
        if dtype not in DTYPES:
            what = "text" if dtype in ("object", "str") else dtype
            raise InputFileError(path, f"its input {value.name!r:.80} is {what}, which is not supported")
        shape = tuple(
            size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else size.dim_param or "?"
            for size in tensor.shape.dim
        )
        limits = _index_range(model, value.name) if dtype in ("int32", "int64") else None
        found.append(ModelInput(value.name, dtype, shape, limits))
    return tuple(found)


def _index_range(model: onnx.ModelProto, name: str) -> tuple[int, int] | None:
    """The valid indices, if an input is looked up in tables of known size: those of the smallest table."""
    sizes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            sizes[node.output[0]] = list(node.attribute[0].t.dims)
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for used in used_by(node):
            users.setdefault(used, []).append(node)
    rows, waiting, seen = [], deque([name]), {name}
    while waiting:
        tensor = waiting.popleft()
        for node in users.get(tensor, []):
            if node.op_type in ("Gather", "GatherElements") and node.input[1] == tensor and node.input[0] in sizes:
                axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
                rows.append(sizes[node.input[0]][axis])
            elif node.op_type in _PASSING and node.input[0] == tensor and node.output[0] not in seen:
                seen.add(node.output[0])
                waiting.append(node.output[0])
    return (0, min(rows)) if rows and min(rows) > 0 else None


def _precision(model: onnx.ModelProto) -> str:
    """`int8` if convolutions or matrix products are computed in integers, `fp16` if in half precision, else `fp32`."""
    nodes = list(model.graph.node)
    if any(node.op_type in _INTEGERS for node in nodes):
        return "int8"
    dequantized = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    if any(node.op_type in _HEAVY and node.input[0] in dequantized for node in nodes):
        return "int8"
    half = {tensor.name for tensor in model.graph.initializer if tensor.data_type == 10}
    return "fp16" if any(node.op_type in _HEAVY and half & set(node.input) for node in nodes) else "fp32"
