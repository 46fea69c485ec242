"""Read the arrays of a `.pth` file without torch, and without running anything that is in it.

`torch.save` writes a pickle, and an unpickler calls whatever the pickle names. The unpickler here is Python's with
restricted globals (Python documentation, "Restricting Globals"): a closed list of names stands for small functions
of this file. It extends the class that is written in Python. The class written in C hashes any object as the key of
a dict, where a deeply nested tuple crashes the process, and keeps its memo in an array, which nine bytes of pickle
can make gigabytes large.

No size in the file makes the process allocate: a tensor is a view of its storage, a storage is as large as its bytes
in the file, and the pickle is limited to `_MAX_PICKLE` bytes.

Two layouts exist (torch/serialization.py): a zip archive with the members `data.pkl` and `data/KEY` for each storage,
and, before torch 1.6, five pickles in a row, followed by the storages.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import InputFileError

Array = NDArray[Any]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_BYTES = 1 << 30  # five times the largest published supernet
_MAX_PICKLE = 4 << 20  # 48 times the largest of the published supernets; takes up to 330 MiB of memory
_MAX_NUMBER = 1 << 40  # of elements, and of every number that describes a tensor
_MAX_DIMENSIONS = 8

_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",  # the upper half of a float32, widened when read
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class _RefusedError(Exception):
    """The file holds something that a state_dict does not; the message names it."""


def read_state_dict(path: str | Path, *, max_bytes: int = _MAX_BYTES) -> dict[str, Array]:
    """Parameter name -> read-only array, from a state_dict or from `{"state_dict": ...}`.

    Raises `InputFileError` for a file that is missing, larger than `max_bytes`, truncated, damaged, or that holds
    anything but named tensors.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise InputFileError(path, f"larger than {max_bytes >> 20} MiB, too large for a file of weights")
            is_zip = file.peek(2)[:2] == b"PK"
            return _named_arrays(_read_zip(file, size) if is_zip else _read_legacy(file.read(max_bytes)))
    except OSError as error:
        raise InputFileError(path, f"cannot be read: {error.strerror or error}") from error
    except _RefusedError as error:
        raise InputFileError(path, f"not a torch file of tensors only: {error}") from None


# --- the two layouts ---------------------------------------------------------------------------------


def _read_legacy(data: bytes) -> Any:
    stream = io.BytesIO(data[:_MAX_PICKLE])
    if _load(stream) != _LEGACY_MAGIC or _load(stream) != _LEGACY_PROTOCOL:
        raise _RefusedError("it does not begin as one")
    system = _load(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _RefusedError("it was written on a big-endian machine")
    storages: dict[str, _Storage] = {}
    content = _load(stream, storages)
    keys = _load(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise _RefusedError("its list of storages does not fit its tensors")
    position = stream.tell()
    for key in keys:
        storage = storages[key]
        if int.from_bytes(data[position : position + 8], "little") != storage.numel:
            raise _RefusedError(f"storage {key[:60]!r} is truncated, or its tensors state another size")
        position = storage.fill(data, position + 8)
    return content


def _read_zip(file: BinaryIO, size: int) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(pickles) != 1:
                raise _RefusedError("it is a zip archive without a data.pkl")
            folder = pickles[0].removesuffix("data.pkl")

            def member(name: str, limit: int) -> bytes:
                info = members.get(folder + name)
                if info is None:
                    raise _RefusedError(f"it lacks {name[:60]!r}")
                # torch never compresses. A compressed member could grow to any size.
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
                    raise _RefusedError(f"{name[:60]!r} in it is compressed or encrypted")
                if info.file_size > limit:
                    raise _RefusedError(f"{name[:60]!r} in it has {info.file_size} bytes, more than {limit}")
                return archive.read(info)

            if folder + "byteorder" in members and member("byteorder", 100) != b"little":
                raise _RefusedError("it was written on a big-endian machine")
            storages: dict[str, _Storage] = {}
            content = _load(io.BytesIO(member("data.pkl", _MAX_PICKLE)), storages)
            if sum(storage.nbytes for storage in storages.values()) > size:
                raise _RefusedError("its storages are larger than the file")
            for key, storage in storages.items():
                storage.fill(member(f"data/{key}", storage.nbytes), 0)
            return content
    # What zipfile raises for headers that make no sense.
    except (zipfile.BadZipFile, ValueError, OverflowError, EOFError, OSError, NotImplementedError) as error:
        raise _RefusedError(f"it is a damaged zip archive ({_one_line(error)})") from None


def _named_arrays(content: Any) -> dict[str, Array]:
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise _RefusedError("it holds no state_dict")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise _RefusedError(f"{str(name)[:60]!r} in its state_dict is not a tensor with a name")
    return {name: tensor.array() for name, tensor in content.items()}


# --- tensors -----------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Storage:
    kind: str
    numel: int
    values: Array | None = None

    @property
    def nbytes(self) -> int:
        return self.numel * np.dtype(_DTYPES[self.kind]).itemsize

    def fill(self, data: bytes, position: int) -> int:
        """Take the values from `data`; returns the position after them."""
        if position + self.nbytes > len(data):
            raise _RefusedError("it is truncated")
        values = np.frombuffer(data, _DTYPES[self.kind], self.numel, position)
        if self.kind == "BFloat16Storage":
            values = (values.astype("<u4") << 16).view("<f4")
        self.values = values
        return position + self.nbytes


@dataclass(frozen=True, eq=False)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> Array:
        values = self.storage.values
        assert values is not None
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if 0 in self.shape and prod(size for size in self.shape if size) < _MAX_NUMBER:
            return np.empty(self.shape, values.dtype)
        if 0 in self.shape or last >= len(values) or prod(self.shape) > len(values):
            raise _RefusedError("a tensor in it reaches beyond its storage")
        strides = [stride * values.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides, writeable=False)


# --- what the names in a pickle stand for ------------------------------------------------------------
#
# A pickle can call these with any arguments. Each takes a fixed number of them, so that no call copies a long tuple.


def _ordered_dict() -> _Dict:
    return _Dict()


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _requires_grad: Any, _hooks: Any, _metadata: Any = None
) -> _Tensor:
    well_formed = (
        isinstance(storage, _Storage)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides) <= _MAX_DIMENSIONS
        and all(type(number) is int and 0 <= number < _MAX_NUMBER for number in (offset, *shape, *strides))
    )
    if not well_formed:
        raise _RefusedError("a tensor in it is malformed")
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: Any, _requires_grad: Any, _hooks: Any) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise _RefusedError("a parameter in it is malformed")
    return tensor


#: (module, name) -> what it stands for. The type of a storage is a plain text here.
_GLOBALS: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", kind): kind for kind in _DTYPES},
}


class _Dict(dict[Any, Any]):
    """Every dict of a pickle. The hash of any other key than these could take forever, or crash the process."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        if not (type(key) is str or (type(key) is int and 0 <= key < _MAX_PICKLE)):
            raise _RefusedError("a dict in it has a key that is neither a text nor the number of a parameter")
        super().__setitem__(key, value)


# --- the unpickler -----------------------------------------------------------------------------------


def _load(stream: io.BytesIO, storages: dict[str, _Storage] | None = None) -> Any:
    """The value of the pickle at the stream's position, which moves to its end.

    With `storages`, the pickle may refer to storages, which are added there.
    """
    try:
        return _Unpickler(stream, storages).load()
    except _RefusedError:
        raise
    except Exception as error:  # an unpickler raises anything for a damaged pickle
        raise _RefusedError(f"its pickle is damaged ({_one_line(error)})") from None


def _refuse_opcode(_: Any) -> NoReturn:
    raise _RefusedError("its pickle has an opcode that no state_dict needs")


#: The opcodes that state_dicts are made of, in protocols 2 to 5.
_OPCODES = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BINFLOAT),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINUNICODE, pickle.SHORT_BINUNICODE),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BINPERSID),
)


class _Unpickler(pickle._Unpickler):
    """Only the opcodes above, only the names above, and storages as the only persistent objects."""

    stack: list[Any]

    def __init__(self, stream: io.BytesIO, storages: dict[str, _Storage] | None) -> None:
        super().__init__(stream)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise _RefusedError(f"it refers to {f'{module}.{name}'[:80]!r}, which no state_dict needs")
        return _GLOBALS[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage that `("storage", type, key, location, numel[, None])` identifies."""
        if isinstance(pid, tuple) and len(pid) == 6 and pid[5] is None:
            pid = pid[:5]
        match pid:
            case ("storage", str(kind), str(key), str(), int(numel)):
                if self._storages is None or kind not in _DTYPES or not 0 <= numel < _MAX_NUMBER:
                    raise _RefusedError("it refers to a storage that cannot exist")
                storage = self._storages.setdefault(key, _Storage(kind, numel))
                if (storage.kind, storage.numel) != (kind, numel):
                    raise _RefusedError(f"it describes storage {key[:60]!r} in two ways")
                return storage
        raise _RefusedError("it refers to something that is not a storage")

    def _load_empty_dict(self) -> None:
        self.stack.append(_Dict())

    def _load_build(self) -> None:
        """Drop the attributes of an OrderedDict (`_metadata`: versions of layers)."""
        self.stack.pop()
        if not isinstance(self.stack[-1], _Dict):
            raise _RefusedError("its pickle sets attributes of something that is not a dict")

    dispatch = {  # noqa: RUF012 - a ClassVar of the base
        **dict.fromkeys(range(256), _refuse_opcode),
        **{code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES},
        pickle.EMPTY_DICT[0]: _load_empty_dict,  # type: ignore[dict-item]
        pickle.BUILD[0]: _load_build,  # type: ignore[dict-item]
    }


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:100]
