"""Reads the arrays out of a `.pth` file without torch, and without running anything that is in it.

`torch.save` writes a pickle, and unpickling runs whatever the file names. Here nothing is unpickled:
the opcodes are only *parsed* (`pickletools.genops` does not execute them) and a small stack machine
of our own builds dicts, lists, tuples, texts and numbers from the two dozen opcodes that a
state_dict needs. It has no import, no attribute access and no call; a global is a text compared with
a closed list, and what `REDUCE` makes of it is decided here. Everything else is refused.
Arrays are views into the file's bytes whose extent is checked first, so that no size in the file can
make the process allocate; only a storage of bfloat16, which numpy lacks, is copied (to float32).

Two layouts exist (torch/serialization.py): the zip archive (`data.pkl`, `data/KEY`) and, before torch
1.6, five pickles in a row followed by the raw storages. Storages may be tagged for any device.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import InputFileError

Array = NDArray[Any]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_BYTES = 1 << 30  # ten times the largest published supernet

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
_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {storage}" for storage in _DTYPES),
}


class _RefusedError(Exception):
    """What the file holds is not what a state_dict holds; the message says what."""


def read_state_dict(path: str | Path, *, max_bytes: int = _MAX_BYTES) -> dict[str, Array]:
    """Parameter name -> array, from a state_dict or from `{"state_dict": ...}`.

    Raises `InputFileError` for a file that is missing, larger than `max_bytes`, cut off, corrupted, or
    holds anything but named arrays.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InputFileError(path, f"cannot be read: {error.strerror or error}") from error
    if len(data) > max_bytes:
        raise InputFileError(path, f"larger than {max_bytes >> 20} MiB, too large for a file of weights")
    try:
        return _named_arrays(_read_zip(data) if data.startswith(b"PK") else _read_legacy(data))
    except _RefusedError as error:
        raise InputFileError(path, f"not a torch file of named arrays: {error}") from None
    except zipfile.BadZipFile as error:
        raise InputFileError(path, f"a damaged zip archive: {error}") from None


# --- the two layouts ---------------------------------------------------------------------------------


def _read_legacy(data: bytes) -> Any:
    stream = io.BytesIO(data)
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
            raise _RefusedError(f"storage {key[:60]!r} is cut off or has another size than its tensors say")
        position = storage.fill(data, position + 8)
    return content


def _read_zip(data: bytes) -> Any:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(pickles) != 1:
                raise _RefusedError("it is a zip archive without a data.pkl")
            prefix = pickles[0].removesuffix("data.pkl")

            def member(name: str) -> bytes:
                info = members.get(prefix + name)
                if info is None:
                    raise _RefusedError(f"{name[:60]!r} is missing in it")
                # torch never compresses; a compressed member could unfold to any size.
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1 or info.file_size > len(data):
                    raise _RefusedError(f"{name[:60]!r} in it is compressed or encrypted")
                return archive.read(info)

            if prefix + "byteorder" in members and member("byteorder") != b"little":
                raise _RefusedError("it was written on a big-endian machine")
            storages: dict[str, _Storage] = {}
            content = _load(io.BytesIO(member("data.pkl")), storages)
            if sum(storage.nbytes for storage in storages.values()) > len(data):
                raise _RefusedError("its storages are larger than the file")
            for key, storage in storages.items():
                storage.fill(member(f"data/{key}"), 0)
            return content
    except (ValueError, OverflowError, EOFError, OSError, NotImplementedError) as error:
        # What zipfile raises, besides BadZipFile, for headers that make no sense.
        raise _RefusedError(f"a damaged zip archive ({error})") from None


def _named_arrays(content: Any) -> dict[str, Array]:
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise _RefusedError("it holds no dict of tensors")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise _RefusedError(f"{name[:60] if isinstance(name, str) else 'something'!r} in it is not a tensor")
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
            raise _RefusedError("it is cut off")
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
        extent = self.offset
        numel = 1
        for size, stride in zip(self.shape, self.strides, strict=True):
            extent += max(size - 1, 0) * stride
            numel *= size
        if numel and (extent >= self.storage.numel or numel > self.storage.numel):
            raise _RefusedError("a tensor in it reaches beyond its storage")
        if not numel:
            return np.empty(self.shape, values.dtype)
        strides = [stride * values.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides, writeable=False)


def _tensor(arguments: Any) -> _Tensor:
    """`_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`."""
    if not isinstance(arguments, tuple) or len(arguments) < 6:
        raise _RefusedError("a tensor in it is malformed")
    storage, offset, shape, strides = arguments[:4]
    well_formed = (
        isinstance(storage, _Storage)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides) <= 8
        and all(type(n) is int and 0 <= n < 1 << 40 for n in (offset, *shape, *strides))
    )
    if not well_formed:
        raise _RefusedError("a tensor in it is malformed")
    return _Tensor(storage, offset, shape, strides)


def _storage(identity: Any, storages: dict[str, _Storage] | None) -> _Storage:
    """The persistent id of a storage: `("storage", type, key, location, numel[, view])`."""
    match identity:
        case ("storage", _Global(name), str(key), str(), int(numel), *view) if view in ([], [None]):
            kind = name.removeprefix("torch ")
            if storages is None or kind not in _DTYPES or not 0 <= numel < 1 << 40:
                raise _RefusedError("it refers to a storage that cannot be")
            storage = storages.setdefault(key, _Storage(kind, numel))
            if (storage.kind, storage.numel) != (kind, numel):
                raise _RefusedError(f"storage {key[:60]!r} is described twice")
            return storage
    raise _RefusedError("it refers to something that is not a storage")


# --- the stack machine -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Global:
    """A name in the file. It stays a name."""

    name: str


_MARK = object()


def _load(stream: io.BytesIO, storages: dict[str, _Storage] | None = None) -> Any:
    """The value of the pickle at the stream's position, which moves behind it.

    With `storages`, storages may be referred to, and are noted there.
    """
    machine = _Machine(storages)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except (ValueError, OverflowError, MemoryError) as error:  # genops, for what is not a pickle
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise _RefusedError(f"its pickle is damaged ({reason})") from None
    raise _RefusedError("its pickle is cut off")


class _Machine:
    def __init__(self, storages: dict[str, _Storage] | None) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _PUSH_ARGUMENT:
            self.stack.append(argument)
        elif opcode in _PUSH_NEW:
            self.stack.append(_PUSH_NEW[opcode]())
        elif opcode in _HANDLERS:
            _HANDLERS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME"):
            raise _RefusedError(f"its pickle uses {opcode}, which no state_dict needs")

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise _RefusedError("its pickle takes from an empty stack")
        return self.stack.pop()

    def pop_many(self, count: int) -> tuple[Any, ...]:
        return tuple(reversed([self.pop() for _ in range(count)]))

    def pop_to_mark(self) -> tuple[Any, ...]:
        items: list[Any] = []
        while self.stack:
            item = self.stack.pop()
            if item is _MARK:
                return tuple(reversed(items))
            items.append(item)
        raise _RefusedError("its pickle lacks a mark")

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise _RefusedError(f"its pickle has no {kind.__name__} where one belongs")
        return self.stack[-1]

    def put(self, index: Any) -> None:
        self.memo[len(self.memo) if index is None else index] = self.top(object)

    def get(self, index: Any) -> None:
        if index not in self.memo:
            raise _RefusedError("its pickle refers to nothing")
        self.stack.append(self.memo[index])

    def set_items(self, items: tuple[Any, ...]) -> None:
        target = self.top(dict)
        if len(items) % 2 or not all(type(key) in (str, int) for key in items[::2]):
            raise _RefusedError("a dict in it has a key that is not a text")
        target.update(zip(items[::2], items[1::2], strict=True))

    def push_global(self, name: str) -> None:
        if name not in _GLOBALS:
            raise _RefusedError(f"it refers to {name.replace(' ', '.')[:80]!r}, which no state_dict needs")
        self.stack.append(_Global(name))

    def stack_global(self) -> None:
        module, name = self.pop_many(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise _RefusedError("it refers to something without a name")
        self.push_global(f"{module} {name}")

    def reduce(self) -> None:
        """What the three callables of a state_dict would have made; nothing is called."""
        target, arguments = self.pop_many(2)
        match target, arguments:
            case _Global("collections OrderedDict"), ():
                self.stack.append({})
            case _Global("torch._utils _rebuild_tensor_v2"), _:
                self.stack.append(_tensor(arguments))
            case _Global("torch._utils _rebuild_parameter"), (_Tensor() as tensor, *_):
                self.stack.append(tensor)
            case _:
                raise _RefusedError("it calls something that no state_dict needs")

    def build(self) -> None:
        """Attributes of an OrderedDict (`_metadata`, the versions of the layers): not needed."""
        self.pop()
        self.top(dict)


_PUSH_ARGUMENT = {
    *("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
}
_PUSH_NEW: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_HANDLERS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "TUPLE": lambda m, _: m.stack.append(m.pop_to_mark()),
    "TUPLE1": lambda m, _: m.stack.append(m.pop_many(1)),
    "TUPLE2": lambda m, _: m.stack.append(m.pop_many(2)),
    "TUPLE3": lambda m, _: m.stack.append(m.pop_many(3)),
    "APPEND": lambda m, _: (lambda item: m.top(list).append(item))(m.pop()),
    "APPENDS": lambda m, _: (lambda items: m.top(list).extend(items))(m.pop_to_mark()),
    "SETITEM": lambda m, _: m.set_items(m.pop_many(2)),
    "SETITEMS": lambda m, _: m.set_items(m.pop_to_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda m, index: m.put(index)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, index: m.get(index)),
    "GLOBAL": lambda m, name: m.push_global(name),
    "STACK_GLOBAL": lambda m, _: m.stack_global(),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.stack.append(_storage(m.pop(), m.storages)),
}
