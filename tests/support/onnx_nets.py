"""Small ONNX networks for tests of models of users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ofa_profiler.models.base import Array, Block

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def weights(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    """Random weights, the same every time."""
    values = np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def constant(name: str, values: Any, dtype: str = "int64") -> onnx.TensorProto:
    """A constant with these values."""
    return numpy_helper.from_array(np.array(values, dtype), name)


def network(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    outputs: Sequence[str],
    constants: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 17,
    ir_version: int = 8,
) -> onnx.ModelProto:
    """A model. Inputs are name -> element type and shape; outputs are floats of any shape."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        list(constants),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    return model


def convolutions(
    depth: int = 4, *, opset: int = 17, channels: int = 16, size: int | str = 48, ir_version: int = 8
) -> onnx.ModelProto:
    """`x` through convolutions with ReLU, all equal but for their weights, with one sum of two branches at the end."""
    nodes, constants, name = [], [], "x"
    for i in range(depth):
        constants += [weights(f"w{i}", channels, channels, 3, 3, seed=i), weights(f"b{i}", channels, seed=i)]
        nodes.append(helper.make_node("Conv", [name, f"w{i}", f"b{i}"], [f"c{i}"], f"conv{i}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], f"relu{i}"))
        name = f"r{i}"
    nodes += [helper.make_node("Add", [name, "r0"], ["sum"], "add")]
    nodes += [helper.make_node("Sigmoid", ["sum"], ["y"], "sigmoid")]
    inputs = {"x": (FLOAT, (1, channels, size, size))}
    return network(nodes, inputs, ["y"], constants, opset=opset, ir_version=ir_version)


def saved(model: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    """Write a model."""
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def run_blocks(blocks: Sequence[Block], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run the blocks one after another on the tensors of those before -> all tensors at their ends."""
    import onnxruntime

    values = dict(feeds)
    for block in blocks:
        opened = onnxruntime.InferenceSession(block.model.data, providers=["CPUExecutionProvider"])
        names = [output.name for output in opened.get_outputs()]
        given = {value.name: values[value.name] for value in opened.get_inputs()}
        values.update(zip(names, opened.run(names, given), strict=True))
    return values
