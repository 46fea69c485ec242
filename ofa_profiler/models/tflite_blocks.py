"""Cuts a TFLite graph: a run of operators becomes a TFLite file of its own.

The tensors of such a file have canonical names, and what the values of weights and the names decide is not part of its
signature: equal blocks of a network have equal signatures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ofa_profiler.models.base import Array, Feed
from ofa_profiler.models.tflite_file import Operator, TfliteFile, listed, schema
from ofa_profiler.models.tflite_writing import buffer_of, code_of, packed
from ofa_profiler.networks.tensors import Shape

#: Constants of more elements are weights, whatever their type.
_SMALL = 1024
_FILE_VERSION = 3


@dataclass(frozen=True, eq=False)
class Part:
    """Operators by their positions, and the tensors that they read and write."""

    positions: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    #: All tensors in order of appearance.
    tensors: tuple[int, ...]

    def names(self) -> dict[int, str]:
        """Tensor -> its canonical name."""
        return {i: f"t{number}" for number, i in enumerate(self.tensors)}


def part_of(file: TfliteFile, positions: Sequence[int], helpers: Mapping[int, int], fixed: Mapping[int, Array]) -> Part:
    """The part with these operators, and the `helpers` (tensor -> position) that make the constants they read.

    `fixed` tensors become constants where an operator outside of the part makes them.
    """
    chosen = set(positions)
    waiting = list(positions)
    while waiting:
        for i in file.operators[waiting.pop()].given:
            if (helper := helpers.get(i)) is not None and helper not in chosen:
                chosen.add(helper)
                waiting.append(helper)
    order = tuple(sorted(chosen))
    operators = [file.operators[position] for position in order]
    made = {i for operator in operators for i in operator.outputs}
    tensors = tuple(
        dict.fromkeys(i for operator in operators for i in (*operator.given, *operator.inner, *operator.outputs))
    )
    inner = made | fixed.keys() | {i for operator in operators for i in operator.inner}
    inputs = tuple(i for i in tensors if i not in inner and not _is_own(file, i))
    own = set(helpers.values())
    outputs = tuple(
        i
        for i in tensors
        if i in made
        and file.maker[i] not in own
        and (i in file.outputs or any(user not in chosen for user in file.users.get(i, ())))
    )
    if not outputs:
        outputs = operators[-1].outputs[:1]
    return Part(order, inputs, outputs, tensors)


def _is_own(file: TfliteFile, i: int) -> bool:
    tensor = file.tensors[i]
    return tensor.is_constant or tensor.is_variable


def _constant(file: TfliteFile, part: Part, i: int, fixed: Mapping[int, Array]) -> Any:
    """The bytes of a constant of the part as numpy array, else None."""
    if file.tensors[i].is_constant:
        return np.asarray(file.tensors[i].data, np.uint8)
    if i in fixed and file.maker.get(i) not in part.positions:
        return np.frombuffer(np.ascontiguousarray(fixed[i]).tobytes(), np.uint8)
    return None


def weight_bytes(file: TfliteFile, part: Part) -> int:
    """The bytes of all constants of a part, as they are in the file."""
    return sum(len(file.tensors[i].data) for i in part.tensors if file.tensors[i].is_constant)


def written(file: TfliteFile, part: Part, shapes: Mapping[int, Shape], fixed: Mapping[int, Array]) -> bytes:
    """The part as a TFLite file. The same part gives the same bytes."""
    api = schema()
    names = part.names()
    number = {i: position for position, i in enumerate(part.tensors)}
    codes: dict[tuple[str, int, bool], int] = {}
    buffers, tensors = [api.BufferT()], []
    for i in part.tensors:
        data = _constant(file, part, i, fixed)
        if data is not None:
            buffers.append(buffer_of(api, data))
        tensors.append(
            _tensor(api, file.tensors[i].raw, names[i], shapes.get(i), len(buffers) - 1 if data is not None else 0)
        )
    graph = api.SubGraphT()
    graph.name, graph.tensors = "main", tensors
    graph.inputs, graph.outputs = ([number[i] for i in found] for found in (part.inputs, part.outputs))
    operators = [file.operators[position] for position in part.positions]
    graph.operators = [_operator(api, operator, codes, number) for operator in operators]
    model = api.ModelT()
    model.version, model.description = _FILE_VERSION, "ofa-profiler"
    model.operatorCodes = [code_of(api, *code) for code in codes]
    model.subgraphs, model.buffers = [graph], buffers
    model.signatureDefs = [_signature(api, part, names, number)]
    return packed(api, model)


def _tensor(api: Any, raw: Any, name: str, shape: Shape | None, buffer: int) -> Any:
    tensor = api.TensorT()
    tensor.name, tensor.type, tensor.buffer = name, raw.type, buffer
    tensor.shape = list(raw.shape if shape is None else shape) if raw.shape is not None or shape is not None else []
    tensor.quantization, tensor.sparsity, tensor.isVariable = raw.quantization, raw.sparsity, raw.isVariable
    tensor.hasRank = True
    return tensor


def _operator(api: Any, operator: Operator, codes: dict[tuple[str, int, bool], int], number: Mapping[int, int]) -> Any:
    code = codes.setdefault((operator.kind, operator.version, operator.custom), len(codes))
    written = api.OperatorT()
    vars(written).update(vars(operator.raw))
    written.opcodeIndex = code
    written.inputs = [number[i] if i >= 0 else -1 for i in operator.inputs]
    written.outputs = [number[i] for i in operator.outputs]
    written.intermediates = [number[i] for i in operator.inner] or None
    written.debugMetadataIndex = -1
    return written


def _signature(api: Any, part: Part, names: Mapping[int, str], number: Mapping[int, int]) -> Any:
    def named(found: Sequence[int]) -> list[Any]:
        pairs = []
        for i in found:
            pair = api.TensorMapT()
            pair.name, pair.tensorIndex = names[i], number[i]
            pairs.append(pair)
        return pairs

    signature = api.SignatureDefT()
    signature.inputs, signature.outputs = named(part.inputs), named(part.outputs)
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    return signature


def signature_of(
    file: TfliteFile, part: Part, shapes: Mapping[int, Shape], fixed: Mapping[int, Array], feeds: Sequence[Feed]
) -> str:
    """A hash of all that can decide about the time of a part: not the names, nor the values of weights."""
    names = part.names()
    tensors = [_described(file, part, i, shapes, fixed) for i in part.tensors]
    operators = [
        [
            operator.kind,
            operator.version,
            [names.get(i) for i in operator.inputs],
            [names[i] for i in (*operator.inner, *operator.outputs)],
            [
                _plain(getattr(operator.raw, field, None))
                for field in ("builtinOptions", "builtinOptions2", "customOptions")
            ],
        ]
        for operator in (file.operators[position] for position in part.positions)
    ]
    given = [_exact(feed) for feed in feeds]
    ends = [[names[i] for i in found] for found in (part.inputs, part.outputs)]
    text = json.dumps([operators, tensors, ends, given], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _exact(feed: Feed) -> str | None:
    """A hash of exact integers: what they index or shape decides about the time. Ranges and spans do not."""
    if feed.values is None or np.issubdtype(feed.values.dtype, np.floating):
        return None
    return hashlib.sha256(feed.values.tobytes()).hexdigest()


def _described(
    file: TfliteFile, part: Part, i: int, shapes: Mapping[int, Shape], fixed: Mapping[int, Array]
) -> list[Any]:
    tensor = file.tensors[i]
    data = _constant(file, part, i, fixed)
    found: list[Any] = [
        tensor.dtype,
        list(shapes.get(i, tensor.shape)),
        tensor.is_variable,
        data is not None and len(data),
    ]
    quantization = tensor.raw.quantization
    if quantization is not None:
        found += [len(listed(quantization.scale)), quantization.quantizedDimension]
    exact = data is not None and tensor.dtype in ("int32", "int64", "bool") and not tensor.is_quantized
    if data is not None and exact and len(data) <= _SMALL * np.dtype(tensor.dtype).itemsize:
        found.append(data.tobytes().hex())
    found.append(tensor.raw.sparsity is not None)
    return found


def _plain(value: Any) -> Any:
    """Options of the schema as plain JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return [type(value).__name__, {name: _plain(one) for name, one in vars(value).items()}]
