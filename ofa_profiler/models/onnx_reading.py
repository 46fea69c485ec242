"""Opens an ONNX file of a user, with its external data, or says in one line what is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ofa_profiler.errors import InputFileError
from ofa_profiler.models.onnx_graph import bodies
from ofa_profiler.models.reading import LARGEST_BYTES, read_model

if TYPE_CHECKING:
    import onnx

#: The first bytes of what people give by mistake.
_OTHERS = (
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself; fetch it by `git lfs pull`"),
    (b"PK\x03\x04", "is a ZIP archive, perhaps a checkpoint of torch; export the network as ONNX"),
    (b"\x80\x02", "is a pickle, perhaps a checkpoint of torch; export the network as ONNX"),
    (b"<", "is a web page or XML, not an ONNX model"),
    (b"{", "is JSON, not an ONNX model"),
)


class OnnxFile(NamedTuple):
    """A model with all weights inside. `data` are the bytes of the file, or of the model if it had external data.

    `sha256` and `n_bytes` are those of all files that it consists of.
    """

    model: onnx.ModelProto
    data: bytes
    sha256: str
    n_bytes: int


def read_onnx(path: Path) -> OnnxFile:
    """Read a model with its external data. Raises `InputFileError`."""
    import onnx

    data = read_model(path)
    if data[4:8] == b"ORTM":
        raise InputFileError(path, "is a model in onnxruntime's own format (.ort); give the ONNX file")
    for start, problem in _OTHERS:
        if data.lstrip()[: len(start)] == start:
            raise InputFileError(path, problem)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # the errors of protobuf and onnx have no common base
        raise InputFileError(path, "is damaged or no ONNX model") from error
    if not model.graph.output or not model.opset_import:
        raise InputFileError(path, "is damaged or no ONNX model: it has no outputs")
    if not all(isinstance(name, str) for name in _names(model.graph)):
        raise InputFileError(path, "is damaged: some of its names are no text")
    digest, size = hashlib.sha256(data), len(data)
    external = _load_external(path, model)
    for content in external:
        digest.update(content)
        size += len(content)
    return OnnxFile(model, _bytes_of(path, model) if external else data, digest.hexdigest(), size)


def _bytes_of(path: Path, model: onnx.ModelProto) -> bytes:
    try:
        data: bytes = model.SerializeToString(deterministic=True)
    except Exception as error:  # protobuf has errors of several kinds for messages that are too large
        raise InputFileError(path, "has more than 2 GB of weights, which is not supported") from error
    if len(data) > LARGEST_BYTES:
        raise InputFileError(path, "has more than 2 GB of weights, which is not supported")
    return data


def _names(graph: onnx.GraphProto) -> Iterator[object]:
    """All names. Those that are not UTF-8 are bytes."""
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    for value in graph.input:
        yield from (size.dim_param for size in value.type.tensor_type.shape.dim)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
        for body in bodies(node):
            yield from _names(body)


def _load_external(path: Path, model: onnx.ModelProto) -> list[bytes]:
    """Bring external data into the model, and return them. Raises `InputFileError`."""
    from onnx.external_data_helper import (
        _get_all_tensors,
        load_external_data_for_tensor,
        uses_external_data,
    )

    tensors = [tensor for tensor in _get_all_tensors(model) if uses_external_data(tensor)]
    if not tensors:
        return []
    total = model.ByteSize()
    for tensor in tensors:
        facts = {entry.key: entry.value for entry in tensor.external_data}
        size = _external_file(path, facts.get("location", "")).stat().st_size
        for name in ("offset", "length"):
            if not facts.get(name, "0").isdecimal():
                raise InputFileError(path, f"is damaged: the {name} of external weights is {facts[name]!r:.40}")
        total += int(facts.get("length", size))
    if total > LARGEST_BYTES:
        raise InputFileError(path, f"has {total / 1e9:.1f} GB of weights; models of more than 2 GB are not supported")
    try:
        for tensor in tensors:
            load_external_data_for_tensor(tensor, str(path.parent))
            del tensor.external_data[:]
            tensor.data_location = tensor.DEFAULT
    except Exception as error:  # onnx raises errors of several kinds
        raise InputFileError(
            path, f"its external weights cannot be read: {' '.join(str(error).split())[:200]}"
        ) from error
    return [tensor.raw_data for tensor in tensors]


def _external_file(path: Path, where: str) -> Path:
    """A file with weights, which must lie in the folder of the model. Raises `InputFileError`."""
    file = path.parent / where
    try:
        is_inside = file.resolve().is_relative_to(path.parent.resolve())
        is_there = file.is_file()
    except (OSError, ValueError):  # names that no file can have
        is_inside = is_there = False
        where = where.replace("\0", " ")
    if is_inside and is_there:
        return file
    if where and not is_there and is_inside:
        raise InputFileError(path, f"needs the file {where!r:.120} with its weights beside it")
    raise InputFileError(path, f"has weights outside its folder, in {where!r:.120}; move them beside it")
