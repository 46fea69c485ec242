"""A user's ONNX model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.models.base import Array, Block, Feed, Kernel, TimedModel, UserModel, tensor_specs
from ofa_profiler.models.onnx_blocks import Cutter
from ofa_profiler.models.onnx_graph import OnnxGraph
from ofa_profiler.models.onnx_inputs import declared_inputs
from ofa_profiler.models.onnx_reading import read_onnx
from ofa_profiler.models.onnx_session import optimized_graph, run, session
from ofa_profiler.models.onnx_values import capture

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


class OnnxModel(UserModel):
    """An ONNX file, opened. Its external data are brought into it."""

    runtime = "onnxruntime"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model, self._data, self.sha256, self.n_bytes = read_onnx(path)
        try:
            self._session = session(self._data)
        except UsageError as error:
            raise InputFileError(path, str(error)) from error
        self.inputs = declared_inputs(path, self.model)
        self.precision = _precision(self.model)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network on this machine -> its outputs by name. Raises `UsageError` with the runtime's reason."""
        return run(self._session, feeds, [output.name for output in self._session.get_outputs()], self.path.name)

    def whole(self, feeds: Mapping[str, Array]) -> TimedModel:
        """The network as it is, with its external data inside."""
        return TimedModel(self._data, tuple(Feed.exact(name, array) for name, array in feeds.items()))

    def blocks(self, feeds: Mapping[str, Array], *, this_machine: bool) -> tuple[Block, ...]:
        """The blocks in order of execution. A network that cannot be cut is one block."""
        found: tuple[Block, ...] = ()
        with suppress(UsageError):  # onnxruntime does not load every graph that it wrote
            found = self.cutter(feeds, this_machine=this_machine).blocks()
        if len(found) > 1:
            return found
        return (replace(found[0], model=self.whole(feeds)) if found else self._as_one(feeds),)

    def _as_one(self, feeds: Mapping[str, Array]) -> Block:
        """The network as a block whose kernels are the nodes in the file."""
        nodes = [node for node in self.model.graph.node if node.op_type != "Constant"]
        kernels = tuple(Kernel(node.name or node.op_type, node.op_type, 0, 0, 0) for node in nodes)
        outputs = self.run(feeds)
        described = repr([(name, array.dtype.name, array.shape) for name, array in feeds.items()])
        return Block(
            self.path.stem,
            kernels,
            tensor_specs(feeds),
            tensor_specs(outputs),
            self.n_bytes,
            hashlib.sha256(f"{self.sha256} {described}".encode()).hexdigest(),
            self.whole(feeds),
        )

    def cutter(self, feeds: Mapping[str, Array], *, this_machine: bool) -> Cutter:
        """What cuts the graph that onnxruntime makes of the network. Raises `UsageError` if it cannot be read again.

        For this machine, its changes of layout are part of it.
        """
        plain = OnnxGraph(optimized_graph(self._data, "ORT_ENABLE_EXTENDED"))
        graph = OnnxGraph(optimized_graph(self._data, "ORT_ENABLE_ALL")) if this_machine else plain
        return Cutter(graph, capture(graph, feeds), plain.convolution_weights)


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
