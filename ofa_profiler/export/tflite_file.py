"""The TFLite file format: writes nodes and constants as a flatbuffer.

The package `tflite` provides the schema. `schema.fbs` in the sources of TensorFlow explains its fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.export.quantize import Quantization
from ofa_profiler.networks.parameters import Array
from ofa_profiler.networks.tensors import Shape

#: Operator -> the schema's table of its options. Other operators have no options.
_OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "GELU": "GeluOptions",
    "HARD_SWISH": "HardSwishOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MIRROR_PAD": "MirrorPadOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "QUANTIZE": "QuantizeOptions",
    "RESHAPE": "ReshapeOptions",
    "SLICE": "SliceOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SUB": "SubOptions",
    "TRANSPOSE": "TransposeOptions",
}
#: Version and identifier of all TFLite files since 2017.
_SCHEMA_VERSION, _FILE_IDENTIFIER = 3, b"TFL3"
#: Kernels read weights directly from the file, in vectors of 16 bytes.
_ALIGNMENT = 16
#: Operator codes from this value on are stored in a second field. The first field then has this value.
_PLACEHOLDER = 127
#: The signature that all tools look for.
_SIGNATURE = "serving_default"
_TYPES = {"float32": "FLOAT32", "int32": "INT32", "int8": "INT8", "uint8": "UINT8", "bool": "BOOL"}


@dataclass(frozen=True)
class Node:
    """An operator with the names of its tensors. `options` have the names of the schema, such as `StrideW`."""

    operator: str
    inputs: tuple[str, ...]
    output: str
    options: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Tensor:
    """A tensor: shape with the batch, numpy's name of its element type, and its values if it is constant."""

    shape: Shape
    dtype: str
    quantization: Quantization | None = None
    values: Array | None = None

    @staticmethod
    def constant(values: Array, quantization: Quantization | None = None) -> Tensor:
        """A tensor with these values."""
        return Tensor(values.shape, values.dtype.name, quantization, values)


#: Version of an operator with int8 activations, if it is not 1 (`tensorflow/compiler/mlir/lite/tools/versioning`).
_INT8_VERSIONS = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2,
    "FULLY_CONNECTED": 4,
    "LOGISTIC": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MIRROR_PAD": 2,
    "MUL": 2,
    "PAD": 2,
    "PADV2": 2,
    "QUANTIZE": 2,
    "RELU": 2,
    "RELU6": 2,
    "SUB": 2,
}


def version_of(node: Node, tensors: Mapping[str, Tensor]) -> int:
    """The oldest version of the operator that has what the node needs."""
    if tensors[node.inputs[0]].dtype == "int8":
        return _INT8_VERSIONS.get(node.operator, 1)
    if node.operator == "DEPTHWISE_CONV_2D" and max(node.options.get(f"Dilation{axis}Factor", 1) for axis in "HW") > 1:
        return 2
    return 5 if node.operator == "FULLY_CONNECTED" and node.options.get("KeepNumDims") else 1


def write_model(
    nodes: Sequence[Node],
    tensors: Mapping[str, Tensor],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    metadata: Mapping[str, str],
) -> bytes:
    """The bytes of a model with one graph. The same arguments give the same bytes.

    The model has the signature `serving_default`, whose names are those of `inputs` and `outputs`. Each entry of
    `metadata` becomes a UTF-8 buffer. Raises `UsageError` for a dtype that TFLite lacks.
    """
    import flatbuffers  # slow to import, like the schema
    import tflite

    texts = {name: np.frombuffer(text.encode(), np.uint8) for name, text in sorted(metadata.items())}
    constants = {name: tensor.values for name, tensor in tensors.items() if tensor.values is not None}
    held = [*constants.values(), *texts.values()]
    file = _File(tflite, flatbuffers.Builder(sum(array.nbytes + 2 * _ALIGNMENT for array in held) + 4096))
    empty, *buffers = [file.table("Buffer"), *map(file.buffer, held)]
    buffer_of = {name: 1 + i for i, name in enumerate(constants)}
    number = {name: i for i, name in enumerate(tensors)}
    codes = sorted({(node.operator, version_of(node, tensors)) for node in nodes})
    offsets = [file.tensor(name, tensor, buffer_of.get(name, 0)) for name, tensor in tensors.items()]
    graph = file.table(
        "SubGraph",
        Name=file.text("main"),
        Tensors=file.offsets(offsets),
        Inputs=file.integers([number[name] for name in inputs]),
        Outputs=file.integers([number[name] for name in outputs]),
        Operators=file.offsets(
            [file.operator(node, codes.index((node.operator, version_of(node, tensors))), number) for node in nodes]
        ),
    )
    entries = [
        file.table("Metadata", Name=file.text(name), Buffer=1 + len(constants) + i) for i, name in enumerate(texts)
    ]
    signature = file.signature({name: number[name] for name in inputs}, {name: number[name] for name in outputs})
    model = file.table(
        "Model",
        Version=_SCHEMA_VERSION,
        Description=file.text("ofa-profiler"),
        OperatorCodes=file.offsets([file.operator_code(*code) for code in codes]),
        Subgraphs=file.offsets([graph]),
        Buffers=file.offsets([empty, *buffers]),
        Metadata=file.offsets(entries),
        SignatureDefs=file.offsets([signature]),
    )
    file.builder.Finish(model, file_identifier=_FILE_IDENTIFIER)
    return bytes(file.builder.Output())


def _type(dtype: str) -> str:
    """The name of an element type in the schema."""
    if dtype not in _TYPES:
        raise UsageError(f"the TFLite exporter does not support the dtype {dtype}; it supports {', '.join(_TYPES)}")
    return _TYPES[dtype]


class _File:
    """A flatbuffer under construction. Everything that a table refers to must be written before it."""

    def __init__(self, schema: Any, builder: Any) -> None:
        self.schema = schema
        self.builder = builder

    def table(self, kind: str, **fields: int) -> int:
        """Write a table of the schema, with fields by their names in the schema, and return its offset."""
        getattr(self.schema, f"{kind}Start")(self.builder)
        for name, value in fields.items():
            getattr(self.schema, f"{kind}Add{name}")(self.builder, value)
        return int(getattr(self.schema, f"{kind}End")(self.builder))

    def text(self, text: str) -> int:
        return int(self.builder.CreateString(text))

    def integers(self, values: Sequence[int]) -> int:
        return int(self.builder.CreateNumpyVector(np.array(values, np.int32)))

    def offsets(self, values: Sequence[int]) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependUOffsetTRelative(value)
        return int(self.builder.EndVector())

    def buffer(self, array: Array) -> int:
        data = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes()
        # Like `CreateByteVector`, but aligned.
        self.builder.StartVector(1, len(data), _ALIGNMENT)
        self.builder.head -= len(data)
        self.builder.Bytes[self.builder.head : self.builder.head + len(data)] = data
        return self.table("Buffer", Data=int(self.builder.EndVector()))

    def tensor(self, name: str, tensor: Tensor, buffer: int) -> int:
        fields = {
            "Name": self.text(name),
            "Shape": self.integers(tensor.shape),
            "Type": getattr(self.schema.TensorType, _type(tensor.dtype)),
            "Buffer": buffer,
            "HasRank": True,
        }
        if tensor.quantization is not None:
            fields["Quantization"] = self.quantization(tensor.quantization)
        return self.table("Tensor", **fields)

    def quantization(self, quantization: Quantization) -> int:
        scales = quantization.scales.astype("<f4")
        return self.table(
            "QuantizationParameters",
            Scale=int(self.builder.CreateNumpyVector(scales)),
            ZeroPoint=int(self.builder.CreateNumpyVector(np.full(len(scales), quantization.zero_point, "<i8"))),
            QuantizedDimension=quantization.axis or 0,
        )

    def signature(self, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> int:
        """Write the names under which users of the model find its inputs and outputs, and the numbers of both."""

        def named(numbers: Mapping[str, int]) -> int:
            pairs = [self.table("TensorMap", Name=self.text(name), TensorIndex=i) for name, i in numbers.items()]
            return self.offsets(pairs)

        names = {"Inputs": named(inputs), "Outputs": named(outputs)}
        return self.table("SignatureDef", **names, SignatureKey=self.text(_SIGNATURE), SubgraphIndex=0)

    def operator_code(self, name: str, version: int) -> int:
        code = getattr(self.schema.BuiltinOperator, name)
        # Old runtimes read the first field. New runtimes use the larger of both.
        return self.table(
            "OperatorCode", DeprecatedBuiltinCode=min(code, _PLACEHOLDER), BuiltinCode=code, Version=version
        )

    def operator(self, node: Node, code: int, number: Mapping[str, int]) -> int:
        fields = {
            "OpcodeIndex": code,
            "Inputs": self.integers([number[name] for name in node.inputs]),
            "Outputs": self.integers([number[node.output]]),
        }
        if kind := _OPTIONS.get(node.operator):
            fields["BuiltinOptionsType"] = getattr(self.schema.BuiltinOptions, kind)
            fields["BuiltinOptions"] = self.table(kind, **node.options)
        return self.table("Operator", **fields)
