"""Edited TFLite files: activations, kernels and channels of networks of our exporter, and of files by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as api
from ai_edge_litert.interpreter import Interpreter

from ofa_profiler import get_space
from ofa_profiler.export import export_network
from ofa_profiler.models.base import Array, Feed, TimedModel
from ofa_profiler.models.what_if.variants import what_if
from ofa_profiler.networks.made_up_weights import repeating_weights
from ofa_profiler.protocol.target import Target

Code = api.BuiltinOperator


def opened(data: bytes, feeds: Mapping[str, Array]) -> Any:
    """As much of a user's model as is asked for."""
    whole = TimedModel(data, tuple(Feed.exact(name, values) for name, values in feeds.items()))
    return SimpleNamespace(runtime="litert", whole=lambda _: whole)


def run(data: bytes, x: Array) -> Array:
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


class Writer:
    """Writes a file with one input `x`, whose last tensor is the output."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.model, self.graph = api.ModelT(), api.SubGraphT()
        self.model.version, self.model.operatorCodes, self.model.buffers = 3, [], [api.BufferT()]
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs = [self.tensor("x", shape)]

    def tensor(self, name: str, shape: tuple[int, ...], values: Array | None = None) -> int:
        tensor = api.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), api.TensorType.FLOAT32, 0
        if values is not None:
            names = {
                "float32": api.TensorType.FLOAT32,
                "int32": api.TensorType.INT32,
                "float16": api.TensorType.FLOAT16,
            }
            buffer = api.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.type, tensor.buffer = names[values.dtype.name], len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, values: Any) -> int:
        values = np.asarray(values)
        return self.tensor("constant", values.shape, values)

    def node(self, code: int, inputs: list[int], shape: tuple[int, ...], options: Any = None) -> int:
        operator, kind = api.OperatorT(), api.OperatorCodeT()
        kind.builtinCode, kind.deprecatedBuiltinCode = code, min(code, 127)
        kind.version = 1
        self.model.operatorCodes.append(kind)
        output = self.tensor(f"net/node{len(self.graph.operators)}", shape)
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.model.operatorCodes) - 1, inputs, [output]
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(api.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.graph.operators.append(operator)
        return output

    def data(self) -> bytes:
        self.graph.outputs = [len(self.graph.tensors) - 1]
        self.model.subgraphs = [self.graph]
        builder = flatbuffers.Builder(4096)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def fused(options: Any, activation: int) -> Any:
    options.fusedActivationFunction = activation
    return options


def depthwise_options(padding: int) -> Any:
    options = api.DepthwiseConv2DOptionsT()
    options.padding, options.strideW, options.strideH, options.depthMultiplier = padding, 1, 1, 1
    return options


def changed(data: bytes) -> Any:
    return api.ModelT.InitFromPackedBuf(data, 0).subgraphs[0]


def feeds_of(shape: tuple[int, ...]) -> dict[str, Array]:
    return {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32) * 3}


SHAPE = (1, 4, 4, 3)


def hard_swish(file: Writer) -> None:
    file.node(Code.HARD_SWISH, [0], SHAPE)


def fused_hard_swish(file: Writer) -> None:
    a = file.node(Code.ADD, [0, file.constant(np.float32(3))], SHAPE, fused(api.AddOptionsT(), 3))
    b = file.node(Code.MUL, [a, 0], SHAPE, api.MulOptionsT())
    file.node(Code.MUL, [b, file.constant(np.float32(1 / 6))], SHAPE, api.MulOptionsT())


def relu6_hard_swish(file: Writer) -> None:
    a = file.node(Code.ADD, [0, file.constant(np.float32(3))], SHAPE, api.AddOptionsT())
    b = file.node(Code.RELU6, [a], SHAPE)
    c = file.node(Code.DIV, [b, file.constant(np.float32(6))], SHAPE, api.DivOptionsT())
    file.node(Code.MUL, [0, c], SHAPE, api.MulOptionsT())


def swish(file: Writer) -> None:
    file.node(Code.MUL, [0, file.node(Code.LOGISTIC, [0], SHAPE)], SHAPE, api.MulOptionsT())


def gelu(file: Writer) -> None:
    file.node(Code.GELU, [0], SHAPE, api.GeluOptionsT())


@pytest.mark.parametrize("spelled", [hard_swish, fused_hard_swish, relu6_hard_swish, swish, gelu])
def test_activations_become_relu(spelled: Any) -> None:
    file, feeds = Writer(SHAPE), feeds_of(SHAPE)
    spelled(file)
    (variant,) = what_if(opened(file.data(), feeds), feeds).variants
    name = spelled.__name__
    assert variant.label.split(" -> ")[0] == ("hard-swish" if "hard" in name else name)
    np.testing.assert_array_equal(run(variant.model.data, feeds["x"]), np.maximum(feeds["x"], 0))
    assert len(changed(variant.model.data).operators) == 1


@pytest.mark.parametrize("padding", ["same", "padded"])
@pytest.mark.parametrize("half", [False, True])
def test_kernels_lose_a_border(padding: str, half: bool) -> None:
    """`half`: weights in 16 bits, which an operator unpacks. `padded`: an operator pads, as some converters do it."""
    shape = (1, 9, 8, 4)
    file, feeds = Writer(shape), feeds_of(shape)
    weights = np.zeros((1, 5, 5, 4), np.float32)
    weights[:, 1:-1, 1:-1] = np.random.default_rng(0).normal(size=(1, 3, 3, 4)).astype(np.float16)
    kernel = file.constant(weights.astype(np.float16) if half else weights)
    if half:
        kernel = file.node(Code.DEQUANTIZE, [kernel], weights.shape)
    x = 0
    if padding == "padded":
        amounts = file.constant(np.array([[0, 0], [2, 2], [2, 2], [0, 0]], np.int32))
        x = file.node(Code.PAD, [0, amounts], (1, 13, 12, 4))
    options = depthwise_options(api.Padding.SAME if padding == "same" else api.Padding.VALID)
    bias = file.constant(np.arange(4, dtype=np.float32))
    file.node(Code.DEPTHWISE_CONV_2D, [x, kernel, bias], shape, options)
    data = file.data()
    (variant,) = what_if(opened(data, feeds), feeds).variants
    assert variant.label.startswith("depthwise kernel 5 -> 3 in net/node")
    np.testing.assert_allclose(run(variant.model.data, feeds["x"]), run(data, feeds["x"]), atol=1e-4)
    tensors = changed(variant.model.data).tensors
    assert tuple(tensors[kernel].shape) == (1, 3, 3, 4)


def test_a_kernel_without_padding_stays() -> None:
    file, feeds = Writer((1, 9, 8, 4)), feeds_of((1, 9, 8, 4))
    inputs = [0, file.constant(np.ones((1, 5, 5, 4), np.float32)), file.constant(np.zeros(4, np.float32))]
    file.node(Code.DEPTHWISE_CONV_2D, inputs, (1, 5, 4, 4), depthwise_options(api.Padding.VALID))
    assert what_if(opened(file.data(), feeds), feeds).variants == ()


def test_channels_change_together() -> None:
    """Inputs and outputs of the network stay."""
    shape, feeds = (1, 6, 6, 3), feeds_of((1, 6, 6, 3))
    file = Writer(shape)
    conv = api.Conv2DOptionsT()
    conv.padding, conv.strideW, conv.strideH = api.Padding.SAME, 1, 1
    rng = np.random.default_rng(0)

    def weights(*sizes: int) -> int:
        return file.constant(rng.normal(size=sizes).astype(np.float32))

    wide = (1, 6, 6, 10)
    a = file.node(Code.CONV_2D, [0, weights(10, 3, 3, 3), weights(10)], wide, conv)
    b = file.node(
        Code.DEPTHWISE_CONV_2D, [a, weights(1, 3, 3, 10), weights(10)], wide, depthwise_options(api.Padding.SAME)
    )
    c = file.node(Code.ADD, [a, b], wide, api.AddOptionsT())
    mean = file.node(Code.MEAN, [c, file.constant(np.array([1, 2], np.int32))], (1, 10), api.ReducerOptionsT())
    file.node(Code.FULLY_CONNECTED, [mean, weights(7, 10), weights(7)], (1, 7), api.FullyConnectedOptionsT())
    (variant,) = what_if(opened(file.data(), feeds), feeds).variants
    assert variant.label == "10 -> 16 channels in net/node0"
    after = [tuple(tensor.shape) for tensor in changed(variant.model.data).tensors]
    assert after == [tuple(16 if size == 10 else size for size in each.shape) for each in file.graph.tensors]
    assert run(variant.model.data, feeds["x"]).shape == (1, 7)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_network_of_ours(tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofa_profiler.models.what_if.variants.MAX_VARIANTS", 8)
    space, target = get_space("cifar-mbv3"), Target("litert", precision)
    weights = repeating_weights(space.layout(space.largest))
    path = export_network(space, space.largest, weights, tmp_path / "n.tflite", target, metadata={})
    data = path.read_bytes()
    given = Interpreter(model_content=data).get_input_details()[0]
    x = np.random.default_rng(0).normal(size=given["shape"]).astype(given["dtype"])
    found = what_if(opened(data, {given["name"]: x}), {given["name"]: x})
    assert path.read_bytes() == data
    changes = {variant.label.split(" in ")[0].split(" at ")[0] for variant in found.variants}
    assert changes >= {"depthwise kernel 7 -> 5", "hard-swish -> ReLU"}
    shape = run(data, x).shape
    assert all(run(variant.model.data, x).shape == shape for variant in found.variants)
