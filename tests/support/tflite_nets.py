"""Small TFLite networks by hand, with the classes of the schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as api

Array = np.ndarray[Any, Any]


@dataclass
class Net:
    """A graph under construction. Tensors have names; `add` appends an operator and returns its first output."""

    dtypes: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    variables: set[str] = field(default_factory=set)
    scales: dict[str, tuple[float, int]] = field(default_factory=dict)
    operators: list[tuple[str, list[str], list[str], Any]] = field(default_factory=list)

    def tensor(self, name: str, shape: Sequence[int], dtype: str = "float32", *, variable: bool = False) -> str:
        """A tensor without values; open sizes are -1."""
        self.shapes[name], self.dtypes[name] = tuple(shape), dtype
        if variable:
            self.variables.add(name)
        return name

    def constant(self, name: str, values: Any, dtype: str = "float32") -> str:
        """A tensor with values."""
        self.values[name] = np.asarray(values, dtype)
        return self.tensor(name, self.values[name].shape, dtype)

    def add(
        self,
        kind: str,
        inputs: Sequence[str],
        output: str,
        shape: Sequence[int],
        *,
        dtype: str = "float32",
        options: Any = None,
    ) -> str:
        """An operator with one output. Inputs named "" are left out."""
        self.tensor(output, shape, dtype)
        self.operators.append((kind, list(inputs), [output], options))
        return output

    def weights(self, name: str, *shape: int) -> str:
        """A constant with random values, the same for the same name."""
        seed = sum(name.encode())
        return self.constant(name, np.random.default_rng(seed).uniform(-0.5, 0.5, shape))


def options(name: str, **fields: Any) -> Any:
    """The options of an operator, by the schema's names."""
    made = getattr(api, f"{name}T")()
    vars(made).update(fields)
    return made


def packed(
    inputs: Sequence[str], outputs: Sequence[str], net: Net, *others: tuple[Sequence[str], Sequence[str], Net]
) -> bytes:
    """The bytes of a file whose primary graph is the first."""
    model = api.ModelT()
    model.version, model.operatorCodes, model.buffers, model.subgraphs = 3, [], [api.BufferT()], []
    for given, made, each in ((inputs, outputs, net), *others):
        model.subgraphs.append(_graph(model, each, given, made))
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _graph(model: Any, net: Net, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    number = {name: i for i, name in enumerate(net.shapes)}
    graph = api.SubGraphT()
    graph.name, graph.tensors, graph.operators = "graph", [_tensor(model, net, name) for name in number], []
    graph.inputs, graph.outputs = [number[name] for name in inputs], [number[name] for name in outputs]
    for kind, given, made, chosen in net.operators:
        operator, code = api.OperatorT(), api.OperatorCodeT()
        value = getattr(api.BuiltinOperator, kind, None)
        code.customCode = kind if value is None else None
        code.builtinCode = api.BuiltinOperator.CUSTOM if value is None else value
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        operator.opcodeIndex = len(model.operatorCodes)
        model.operatorCodes.append(code)
        operator.inputs = [number[name] if name else -1 for name in given]
        operator.outputs = [number[name] for name in made]
        if chosen is not None:
            operator.builtinOptions = chosen
            operator.builtinOptionsType = getattr(api.BuiltinOptions, type(chosen).__name__[:-1])
        graph.operators.append(operator)
    return graph


def _tensor(model: Any, net: Net, name: str) -> Any:
    tensor = api.TensorT()
    tensor.name, tensor.hasRank = name, True
    tensor.type = getattr(api.TensorType, net.dtypes[name].upper())
    tensor.shape = [max(size, 1) for size in net.shapes[name]]
    if min(net.shapes[name], default=0) < 0:
        tensor.shapeSignature = list(net.shapes[name])
    tensor.isVariable = name in net.variables
    if name in net.values:
        buffer = api.BufferT()
        buffer.data = np.frombuffer(net.values[name].tobytes(), np.uint8)
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
    if name in net.scales:
        tensor.quantization = api.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [net.scales[name][0]], [net.scales[name][1]]
    return tensor


def widths(net: Net, x: str, sizes: Mapping[str, tuple[int, int]], rows: int) -> str:
    """Fully connected layers one after the other: name -> inner and outer size."""
    for name, (inner, outer) in sizes.items():
        inputs = [x, net.weights(f"{name}/w", outer, inner), net.weights(f"{name}/b", outer)]
        x = net.add("FULLY_CONNECTED", inputs, name, (rows, outer), options=options("FullyConnectedOptions"))
    return x
