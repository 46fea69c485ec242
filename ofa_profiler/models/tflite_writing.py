"""Writes TFLite files from the schema's objects, and reads values and kinds of those that are to be written."""

from __future__ import annotations

from typing import Any

import numpy as np

from ofa_profiler.models.base import Array
from ofa_profiler.models.tflite_file import IDENTIFIER, dtype_names, kind_of, listed
from ofa_profiler.networks.tensors import DTYPES

#: Kernels read weights directly from the file, in vectors of 16 bytes.
_ALIGNMENT = 16


def packed(api: Any, model: Any) -> bytes:
    """The bytes of a model (`ModelT`). Its buffers are replaced by aligned ones with the same content."""
    import flatbuffers  # comes with the schema

    sizes = [0 if buffer.data is None else len(buffer.data) for buffer in model.buffers]
    pairs = zip(model.buffers, sizes, strict=True)
    model.buffers = [_aligned(api, buffer.data) if size else buffer for buffer, size in pairs]
    builder = flatbuffers.Builder(sum(sizes) + 4096)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _aligned(api: Any, data: Any) -> Any:
    """A buffer whose bytes are aligned in the file, which the schema's own code does not do."""

    class Aligned(api.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> int:  # noqa: N802 (the schema's name)
            content = np.asarray(data, np.uint8).tobytes()
            builder.StartVector(1, len(content), _ALIGNMENT)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            vector = builder.EndVector()
            api.BufferStart(builder)
            api.BufferAddData(builder, vector)
            return int(api.BufferEnd(builder))

    buffer = Aligned()
    buffer.data = data
    return buffer


def buffer_of(api: Any, values: Array) -> Any:
    """A buffer with the elements of an array."""
    buffer = api.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    return buffer


def stored_values(api: Any, model: Any, tensor: Any) -> Array | None:
    """The values of a constant as they are in the file; None for other tensors, and for types numpy lacks."""
    data, dtype = model.buffers[tensor.buffer].data, dtype_names(api)[tensor.type]
    if data is None or not len(data) or tensor.sparsity is not None or dtype not in DTYPES:
        return None
    return np.frombuffer(bytes(data), dtype).reshape(listed(tensor.shape))


def code_of(api: Any, kind: str, version: int, custom: bool = False) -> Any:
    """A new operator code."""
    code = api.OperatorCodeT()
    value = api.BuiltinOperator.CUSTOM if custom else getattr(api.BuiltinOperator, kind)
    # Old runtimes read the first field. New runtimes use the larger of both.
    code.deprecatedBuiltinCode, code.builtinCode, code.version = min(value, 127), value, version
    code.customCode = kind if custom else None
    return code


def code_index(api: Any, model: Any, kind: str, version: int) -> int:
    """The position of the code of an operator among those of a model, which gets it if it has none."""
    codes = listed(model.operatorCodes)
    for position, code in enumerate(codes):
        if kind_of(api, code) == kind and code.version == version:
            return position
    model.operatorCodes = [*codes, code_of(api, kind, version)]
    return len(codes)
