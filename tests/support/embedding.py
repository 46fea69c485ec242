"""A model with two inputs, one of them integers: rows of a table by their numbers, plus an offset."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ofa_profiler.export import Model
from ofa_profiler.export.tflite_file import Tensor, _File
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.tensors import TensorSpec

WORDS, WIDTH, LENGTH = 10, 8, 4
IDS = {"name": "ids", "shape": [1, LENGTH], "range": [0, WORDS]}
OFFSET = {"name": "offset", "dtype": "float32", "shape": [1, LENGTH, WIDTH]}


def embedding_onnx() -> bytes:
    """`table[ids] + offset`, with ids of 64 bits."""
    table = numpy_helper.from_array(np.ones((WORDS, WIDTH), np.float32), "table")
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, IDS["shape"]),
        helper.make_tensor_value_info("offset", TensorProto.FLOAT, OFFSET["shape"]),
    ]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, OFFSET["shape"])
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Add", ["rows", "offset"], ["output"]),
    ]
    graph = helper.make_graph(nodes, "embedding", inputs, [output], [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def embedding_tflite() -> bytes:
    """The same with ids of 32 bits."""
    import flatbuffers
    import tflite

    file = _File(tflite, flatbuffers.Builder(1 << 16))
    buffers = [file.table("Buffer"), file.buffer(np.ones((WORDS, WIDTH), np.float32))]
    wide = (1, LENGTH, WIDTH)
    tensors = [
        file.tensor("ids", Tensor((1, LENGTH), "int32"), 0),
        file.tensor("offset", Tensor(wide, "float32"), 0),
        file.tensor("table", Tensor((WORDS, WIDTH), "float32"), 1),
        file.tensor("rows", Tensor(wide, "float32"), 0),
        file.tensor("output", Tensor(wide, "float32"), 0),
    ]

    def operator(code: int, kind: str, inputs: list[int], output: int) -> int:
        return file.table(
            "Operator",
            OpcodeIndex=code,
            Inputs=file.integers(inputs),
            Outputs=file.integers([output]),
            BuiltinOptionsType=getattr(tflite.BuiltinOptions, kind),
            BuiltinOptions=file.table(kind),
        )

    graph = file.table(
        "SubGraph",
        Tensors=file.offsets(tensors),
        Inputs=file.integers([0, 1]),
        Outputs=file.integers([4]),
        Operators=file.offsets([operator(0, "GatherOptions", [2, 0], 3), operator(1, "AddOptions", [3, 1], 4)]),
    )
    model = file.table(
        "Model",
        Version=3,
        OperatorCodes=file.offsets([file.operator_code("GATHER", 1), file.operator_code("ADD", 1)]),
        Subgraphs=file.offsets([graph]),
        Buffers=file.offsets(buffers),
    )
    file.builder.Finish(model, file_identifier=b"TFL3")
    return bytes(file.builder.Output())


#: Runtime -> suffix, bytes, and the type of integers that is usual there.
MODELS = {"onnxruntime": (".onnx", embedding_onnx, "int64"), "litert": (".tflite", embedding_tflite, "int32")}


def embedding(folder: Path, runtime: str) -> tuple[Op, Model]:
    """The op, whose kind no code of ours knows, and its model."""
    suffix, build, dtype = MODELS[runtime]
    ids = TensorSpec("ids", dtype, (LENGTH,), (0, WORDS))
    offset = TensorSpec("offset", "float32", (LENGTH, WIDTH))
    output = TensorSpec("output", "float32", (LENGTH, WIDTH))
    op = Op("embedding", (ids, offset), (output,), {"words": WORDS}, f"embedding of {WORDS} words")
    data = build()
    path = folder / f"{hashlib.sha256(data).hexdigest()}{suffix}"
    path.write_bytes(data)
    inputs = [tensor._replace(shape=(1, *tensor.shape)) for tensor in op.inputs]
    return op, Model.from_file(op.key, path, inputs)
