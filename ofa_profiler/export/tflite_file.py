"""The TFLite file format: writes nodes and constants as a flatbuffer.

The package `tflite` provides the schema. `schema.fbs` in the sources of TensorFlow explains its fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.parameters import Array
from ofa_profiler.networks.tensors import Shape

#: Operator -> the schema's table of its options. Other operators have no options.
_OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "GELU": "GeluOptions",
    "HARD_SWISH": "HardSwishOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MIRROR_PAD": "MirrorPadOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "RESHAPE": "ReshapeOptions",
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
_TYPES = {"float32": "FLOAT32", "int32": "INT32", "int8": "INT8", "uint8": "UINT8", "bool": "BOOL"}


@dataclass(frozen=True)
class Node:
    """An operator with the names of its tensors. `options` have the names of the schema, such as `StrideW`."""

    operator: str
    inputs: tuple[str, ...]
    output: str
    options: Mapping[str, int] = field(default_factory=dict)


def write_model(
    nodes: Sequence[Node],
    shapes: Mapping[str, Shape],
    constants: Mapping[str, Array],
    *,
    inputs: Mapping[str, str],
    outputs: Sequence[str],
    metadata: Mapping[str, str],
) -> bytes:
    """The bytes of a model with one graph. The same arguments give the same bytes.

    `shapes` has all tensors except constants, with the batch. They are float32, except the `inputs`, whose dtypes are
    given by name. Each entry of `metadata` becomes a UTF-8 buffer. Raises `UsageError` for a dtype that TFLite lacks.
    """
    import flatbuffers  # slow to import, like the schema
    import tflite

    texts = {name: np.frombuffer(text.encode(), np.uint8) for name, text in sorted(metadata.items())}
    held = [*constants.values(), *texts.values()]
    file = _File(tflite, flatbuffers.Builder(sum(array.nbytes + 2 * _ALIGNMENT for array in held) + 4096))
    empty, *buffers = [file.table("Buffer"), *map(file.buffer, held)]
    number = {name: i for i, name in enumerate([*shapes, *constants])}
    tensors = [file.tensor(name, shape, _type(inputs.get(name, "float32")), 0) for name, shape in shapes.items()]
    tensors += [
        file.tensor(name, array.shape, _type(array.dtype.name), 1 + i)
        for i, (name, array) in enumerate(constants.items())
    ]
    codes = sorted({node.operator for node in nodes})
    graph = file.table(
        "SubGraph",
        Name=file.text("main"),
        Tensors=file.offsets(tensors),
        Inputs=file.integers([number[name] for name in inputs]),
        Outputs=file.integers([number[name] for name in outputs]),
        Operators=file.offsets([file.operator(node, codes.index(node.operator), number) for node in nodes]),
    )
    entries = [
        file.table("Metadata", Name=file.text(name), Buffer=1 + len(constants) + i) for i, name in enumerate(texts)
    ]
    model = file.table(
        "Model",
        Version=_SCHEMA_VERSION,
        Description=file.text("ofa-profiler"),
        OperatorCodes=file.offsets([file.operator_code(code) for code in codes]),
        Subgraphs=file.offsets([graph]),
        Buffers=file.offsets([empty, *buffers]),
        Metadata=file.offsets(entries),
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

    def tensor(self, name: str, shape: Shape, kind: str, buffer: int) -> int:
        return self.table(
            "Tensor",
            Name=self.text(name),
            Shape=self.integers(shape),
            Type=getattr(self.schema.TensorType, kind),
            Buffer=buffer,
            HasRank=True,
        )

    def operator_code(self, name: str) -> int:
        code = getattr(self.schema.BuiltinOperator, name)
        # Old runtimes read the first field. New runtimes use the larger of both.
        return self.table("OperatorCode", DeprecatedBuiltinCode=min(code, _PLACEHOLDER), BuiltinCode=code, Version=1)

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
