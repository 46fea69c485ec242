"""Reads TFLite files: what is in them by the schema, and in one line why a file is refused.

`schema.fbs` in the sources of TensorFlow explains the fields. Python checks every access to the bytes, so a file whose
objects can be read completely, with indices that exist, is safe to walk through.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ofa_profiler.base.extras import need
from ofa_profiler.errors import InputFileError
from ofa_profiler.models.reading import read_model

#: The first bytes of a file after the first offset.
IDENTIFIER = b"TFL3"
#: Operators that unpack constants. XNNPACK runs them once, when it loads a file.
UNPACKING = {"DEQUANTIZE", "DENSIFY"}
#: What a damaged file makes the schema's code raise.
_DAMAGED = (Exception,)
#: Names of element types in numpy, where they differ from the schema's in more than case.
_DTYPES = {"BOOL": "bool"}


def schema() -> Any:
    """The schema's classes. Raises `UsageError` without the extra."""
    need("ai-edge-litert", extra="litert", purpose="a TFLite model", module="ai_edge_litert.schema_py_generated")
    from ai_edge_litert import schema_py_generated  # type: ignore[import-untyped] # an extra

    return schema_py_generated


@cache
def _names(enum: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


def dtype_names(api: Any) -> dict[int, str]:
    """Number of an element type in the schema -> its name in numpy, as far as numpy has it."""
    return {number: _DTYPES.get(name, name.lower()) for number, name in _names(api.TensorType).items()}


def kind_of(api: Any, code: Any) -> str:
    """The name of the operator of a code in the schema. Old files use one of its fields, new ones the other."""
    return _names(api.BuiltinOperator)[max(code.builtinCode, code.deprecatedBuiltinCode)]


def listed(values: Any) -> list[Any]:
    """A vector of the schema, which may be absent."""
    return [] if values is None else list(values)


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph. Open dimensions of `shape` are -1. `data` are the bytes of a constant."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_variable: bool
    data: Any = field(repr=False)
    #: The schema's object.
    raw: Any = field(repr=False)

    @property
    def is_constant(self) -> bool:
        """Whether its values are in the file."""
        return self.data is not None

    @property
    def has_blocks(self) -> bool:
        """Whether its scales are in another tensor."""
        found = self.raw.quantization
        return found is not None and hasattr(found.details, "scales")

    @property
    def is_quantized(self) -> bool:
        """Whether its integers stand for real numbers."""
        found = self.raw.quantization
        return found is not None and len(listed(found.scale)) > 0


@dataclass(frozen=True)
class Operator:
    """An operator of the graph with the indices of its tensors. Inputs that are left out are -1.

    `inner` tensors have the quantization of what the operator computes inside, and no values.
    """

    kind: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    inner: tuple[int, ...]
    custom: bool
    raw: Any = field(repr=False)

    @property
    def given(self) -> tuple[int, ...]:
        """Its inputs, without those left out."""
        return tuple(i for i in self.inputs if i >= 0)


@dataclass(frozen=True, eq=False)
class TfliteFile:
    """A file and its primary graph."""

    data: bytes = field(repr=False)
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @cached_property
    def users(self) -> dict[int, tuple[int, ...]]:
        """Tensor -> the positions of the operators that read it."""
        found: dict[int, list[int]] = {}
        for position, operator in enumerate(self.operators):
            for i in dict.fromkeys(operator.given):
                found.setdefault(i, []).append(position)
        return {i: tuple(positions) for i, positions in found.items()}

    @cached_property
    def maker(self) -> dict[int, int]:
        """Tensor -> the position of the operator that writes it."""
        return {i: position for position, operator in enumerate(self.operators) for i in operator.outputs}


def read_tflite(path: Path) -> TfliteFile:
    """Read a file. Raises `InputFileError`."""
    api = schema()
    data = read_model(path)
    if data[4:8] != IDENTIFIER:
        raise InputFileError(path, "is not a TFLite file")
    try:
        return _opened(api, data)
    except _Refused as error:
        raise InputFileError(path, str(error)) from None
    except _DAMAGED as error:
        raise InputFileError(path, f"is a damaged TFLite file ({type(error).__name__}): get it again") from None


class _Refused(Exception):
    """Why a file is refused."""


def _opened(api: Any, data: bytes) -> TfliteFile:
    model = api.ModelT.InitFromPackedBuf(data, 0)
    if not listed(model.subgraphs):
        raise _Refused("is a TFLite file without a graph")
    graph = model.subgraphs[0]
    dtypes = dtype_names(api)
    tensors = tuple(_tensor(tensor, model.buffers, dtypes) for tensor in listed(graph.tensors))
    operators = tuple(_operator(api, operator, model.operatorCodes) for operator in listed(graph.operators))
    inputs, outputs = (tuple(int(i) for i in listed(found)) for found in (graph.inputs, graph.outputs))
    used = [*inputs, *outputs, *(i for op in operators for i in (*op.given, *op.outputs, *op.inner))]
    if any(not 0 <= i < len(tensors) for i in used):
        raise _Refused("is a damaged TFLite file (an operator names a tensor that does not exist): get it again")
    if not (operators and inputs and outputs):
        raise _Refused("is a TFLite file without operators, inputs or outputs: there is nothing to measure")
    if text := [tensors[i].name for i in used if tensors[i].dtype == "string"]:
        raise _Refused(f"has the tensor {text[0]!r:.80} of texts; only networks of numbers are supported")
    names = [tensors[i].name for i in inputs]
    if len(set(names)) < len(names):
        raise _Refused("has several inputs of one name; rename them")
    return TfliteFile(data, tensors, operators, inputs, outputs)


def _tensor(raw: Any, buffers: Any, dtypes: dict[int, str]) -> Tensor:
    shape = tuple(int(size) for size in listed(raw.shape))
    sizes = tuple(int(size) for size in listed(raw.shapeSignature))
    buffer = buffers[raw.buffer]
    data = buffer.data if buffer.data is not None and len(buffer.data) else None
    if buffer.offset > 1:
        raise _Refused("has weights outside of the flatbuffer, which is not supported; convert it with less than 2 GB")
    dtype = dtypes[raw.type]
    _check_size(shape, dtype, data, raw)
    name = (raw.name or b"").decode()
    return Tensor(name, dtype, sizes or shape, bool(raw.isVariable), data, raw)


def _check_size(shape: tuple[int, ...], dtype: str, data: Any, raw: Any) -> None:
    """A constant with fewer bytes than its shape would be read beyond its end."""
    if data is None or raw.sparsity is not None or dtype in ("string", "resource", "variant"):
        return
    try:
        size = np.dtype(dtype).itemsize
    except TypeError:
        return  # types of less than a byte
    if prod(shape) * size != len(data) or min(shape, default=0) < 0:
        raise _Refused("is a damaged TFLite file (a constant has not the size of its shape): get it again")


def _operator(api: Any, raw: Any, codes: Any) -> Operator:
    code = codes[raw.opcodeIndex]
    kind = kind_of(api, code)
    if custom := kind == "CUSTOM":
        kind = (code.customCode or b"").decode("utf-8", "replace") or kind
    inputs, outputs, inner = (
        tuple(int(i) for i in listed(found)) for found in (raw.inputs, raw.outputs, raw.intermediates)
    )
    if min(inputs, default=0) < -1:
        raise IndexError(inputs)
    return Operator(kind, int(code.version), inputs, outputs, inner, custom, raw)
