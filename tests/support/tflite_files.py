"""Reads and runs TFLite files: operators, tensors with their quantization, partitions of delegates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tflite
from ai_edge_litert.interpreter import Interpreter

_CODES = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
_TYPES = {value: name for name, value in vars(tflite.TensorType).items() if isinstance(value, int)}


class Operator(NamedTuple):
    """An operator of a file, with the names of its tensors."""

    name: str
    version: int
    inputs: list[str]
    output: str


@dataclass(frozen=True)
class Stored:
    """A tensor of a file. `scales` is empty if it is not quantized."""

    dtype: str
    shape: tuple[int, ...]
    scales: np.ndarray
    zero_points: np.ndarray
    axis: int
    values: np.ndarray | None

    @property
    def span(self) -> tuple[float, float]:
        """The values of the smallest and the largest int8."""
        (scale,), (zero_point,) = self.scales.astype(np.float64), self.zero_points
        return float(scale * (-128 - zero_point)), float(scale * (127 - zero_point))


def operators(data: bytes) -> list[Operator]:
    """The operators in order."""
    model = tflite.Model.GetRootAs(data)
    graph = model.Subgraphs(0)
    names = [graph.Tensors(i).Name().decode() for i in range(graph.TensorsLength())]
    found = []
    for i in range(graph.OperatorsLength()):
        node = graph.Operators(i)
        code = model.OperatorCodes(node.OpcodeIndex())
        inputs = [names[j] for j in node.InputsAsNumpy()]
        found.append(Operator(_CODES[code.BuiltinCode()], code.Version(), inputs, names[node.Outputs(0)]))
    return found


def tensors(data: bytes) -> dict[str, Stored]:
    """Name -> tensor."""
    model = tflite.Model.GetRootAs(data)
    graph = model.Subgraphs(0)
    found = {}
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        dtype, shape = _TYPES[tensor.Type()], tuple(tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
        quantization, values = tensor.Quantization(), None
        if tensor.Buffer():
            raw = model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
            values = np.frombuffer(raw, np.dtype(dtype.lower())).reshape(shape)
        has = quantization is not None and quantization.ScaleLength()
        found[tensor.Name().decode()] = Stored(
            dtype,
            shape,
            quantization.ScaleAsNumpy() if has else np.empty(0),
            quantization.ZeroPointAsNumpy() if has else np.empty(0, np.int64),
            quantization.QuantizedDimension() if has else 0,
            values,
        )
    return found


def load(data: bytes) -> Interpreter:
    """The model, ready to run with XNNPACK on one thread."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def partitions(data: bytes) -> int:
    """The number of parts that XNNPACK runs; 1 means that it runs the whole model."""
    interpreter = load(data)
    parts = [node for node in interpreter._get_ops_details() if node["op_name"] == "DELEGATE"]
    if len(parts) == 1:
        (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
        assert source["index"] in parts[0]["inputs"], "the first operators are not in the part"
        assert result["index"] in parts[0]["outputs"], "the last operators are not in the part"
    return len(parts)


def run(data: bytes, x: np.ndarray) -> np.ndarray:
    """The output for float32 images (N, H, W, C), one at a time. int8 ends are quantized here, exactly."""
    interpreter, outputs = load(data), []
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    for image in x:
        value = image[None]
        if source["dtype"] == np.int8:
            scale, zero_point = source["quantization"]
            value = np.clip(np.rint(value / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], value)
        interpreter.invoke()
        y = interpreter.get_tensor(result["index"])[0]
        if result["dtype"] == np.int8:
            scale, zero_point = result["quantization"]
            y = scale * (y.astype(np.float32) - zero_point)
        outputs.append(y)
    return np.array(outputs)
