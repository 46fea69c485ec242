"""A restricted unpickler for the pickles of torch: it gives tensors and plain values, and runs nothing.

An unpickler calls whatever the pickle names. The unpickler here is Python's with restricted globals (Python
documentation, "Restricting Globals"): a closed list of names stands for small functions of this file, and every other
name for a `Foreign`, which does nothing. So a checkpoint can hold a numpy scalar or an `argparse.Namespace` beside its
weights. The unpickler extends the class that is written in Python. The class written in C hashes any object as the key
of a dict, where a deeply nested tuple crashes the process, and keeps its memo in an array, which nine bytes of pickle
can make gigabytes large.

No size in the pickle makes the process allocate: a tensor is a view of its storage, and a storage is as large as its
bytes in the file.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: The largest pickle that is read: 48 times that of the largest published supernet. It takes up to 330 MiB of memory.
MAX_PICKLE = 4 << 20
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


class RefusedError(Exception):
    """The file holds something that cannot be read; the message names it."""


# --- tensors -----------------------------------------------------------------------------------------


@dataclass(eq=False)
class Storage:
    """The values of one or more tensors. `values` is None until they are read from the file."""

    kind: str
    numel: int
    values: Array | None = None

    @property
    def nbytes(self) -> int:
        return self.numel * np.dtype(_DTYPES[self.kind]).itemsize

    def fill(self, data: bytes, position: int) -> int:
        """Take the values from `data`; returns the position after them."""
        if position + self.nbytes > len(data):
            raise RefusedError("it is truncated")
        values = np.frombuffer(data, _DTYPES[self.kind], self.numel, position)
        if self.kind == "BFloat16Storage":
            values = (values.astype("<u4") << 16).view("<f4")
        self.values = values
        return position + self.nbytes


@dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage. `offset` and `strides` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> Array:
        """The values, read-only. Raises `RefusedError` for a view beyond the storage."""
        values = self.storage.values
        assert values is not None
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if 0 in self.shape and prod(size for size in self.shape if size) < _MAX_NUMBER:
            return np.empty(self.shape, values.dtype)
        if 0 in self.shape or last >= len(values) or prod(self.shape) > len(values):
            raise RefusedError("a tensor in it reaches beyond its storage")
        strides = [stride * values.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides, writeable=False)


# --- what the names in a pickle stand for ------------------------------------------------------------
#
# A pickle can call these with any arguments. Each takes a fixed number of them, so that no call copies a long tuple.


@dataclass(frozen=True, eq=False)
class Foreign:
    """Any class, function or object that is not in `_GLOBALS`. Whatever the pickle does with it has no effect."""

    name: str

    def __setitem__(self, _key: Any, _value: Any) -> None: ...

    def append(self, _value: Any) -> None:
        """Ignore an item."""

    def extend(self, _values: Any) -> None:
        """Ignore items."""


def _ordered_dict() -> Dict:
    return Dict()


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _requires_grad: Any, _hooks: Any, _metadata: Any = None
) -> Tensor | Foreign:
    if isinstance(storage, Foreign):
        return storage
    well_formed = (
        isinstance(storage, Storage)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides) <= _MAX_DIMENSIONS
        and all(type(number) is int and 0 <= number < _MAX_NUMBER for number in (offset, *shape, *strides))
    )
    if not well_formed:
        raise RefusedError("a tensor in it is malformed")
    return Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: Any, _requires_grad: Any, _hooks: Any) -> Tensor | Foreign:
    if not isinstance(tensor, Tensor | Foreign):
        raise RefusedError("a parameter in it is malformed")
    return tensor


#: (module, name) -> what it stands for. The type of a storage is a plain text here.
_GLOBALS: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", kind): kind for kind in _DTYPES},
}


class Dict(dict[Any, Any]):
    """Every dict of a pickle. `is_odd` is true if it had other keys than texts and the numbers of parameters.

    Entries with other keys are left out: their hash could take forever, or crash the process.
    """

    __slots__ = ("is_odd",)

    def __init__(self) -> None:
        super().__init__()
        self.is_odd = False

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(key) is str or (type(key) is int and 0 <= key < MAX_PICKLE):
            super().__setitem__(key, value)
        else:
            self.is_odd = True


# --- the unpickler -----------------------------------------------------------------------------------


def load_pickle(stream: io.BytesIO, storages: dict[str, Storage] | None = None) -> Any:
    """The value of the pickle at the stream's position, which moves to its end.

    With `storages`, the pickle may refer to storages, which are added there. Raises `RefusedError`.
    """
    try:
        return _Unpickler(stream, storages).load()
    except RefusedError:
        raise
    except Exception as error:  # an unpickler raises anything for a damaged pickle
        raise RefusedError(f"its pickle is damaged ({one_line(error)})") from None


def _refuse_opcode(_: Any) -> NoReturn:
    raise RefusedError("its pickle has an opcode that no checkpoint needs")


#: The opcodes that checkpoints are made of, in protocols 2 to 5.
_OPCODES = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BINFLOAT),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINUNICODE, pickle.SHORT_BINUNICODE),
    *(pickle.BINBYTES, pickle.SHORT_BINBYTES),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID),
)


class _Unpickler(pickle._Unpickler):
    """Only the opcodes above, only the names above, and storages as the only persistent objects."""

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, stream: io.BytesIO, storages: dict[str, Storage] | None) -> None:
        super().__init__(stream)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        return _GLOBALS.get((module, name)) or Foreign(f"{module}.{name}"[:80])

    def persistent_load(self, pid: Any) -> Storage | Foreign:
        """The storage that `("storage", type, key, location, numel[, None])` identifies."""
        if isinstance(pid, tuple) and len(pid) == 6 and pid[5] is None:
            pid = pid[:5]
        match pid:
            case ("storage", str(kind), str(key), str(), int(numel)):
                if self._storages is None or kind not in _DTYPES or not 0 <= numel < _MAX_NUMBER:
                    raise RefusedError("it refers to a storage that cannot exist")
                storage = self._storages.setdefault(key, Storage(kind, numel))
                if (storage.kind, storage.numel) != (kind, numel):
                    raise RefusedError(f"it describes storage {key[:60]!r} in two ways")
                return storage
            case ("storage", Foreign() as kind, str(), str(), int()) | ("module", Foreign() as kind, *_):
                return kind
        raise RefusedError("it refers to something that is not a storage")

    def _load_empty_dict(self) -> None:
        self.stack.append(Dict())

    def _load_empty_set(self) -> None:
        """A set has no effect either: hashing its items could take forever."""
        self.stack.append(Foreign("builtins.set"))

    def _load_additems(self) -> None:
        self.pop_mark()

    def _load_frozenset(self) -> None:
        self.pop_mark()
        self.stack.append(Foreign("builtins.frozenset"))

    def _load_reduce(self) -> None:
        """Call a function of `_GLOBALS`. The result of a `Foreign` is the `Foreign` itself."""
        arguments = self.stack.pop()
        if not isinstance(self.stack[-1], Foreign):
            self.stack[-1] = self.stack[-1](*arguments)

    def _load_newobj(self) -> None:
        """Make an object. An object of a `Foreign` class is the `Foreign` itself."""
        self.stack.pop()
        if not isinstance(self.stack[-1], Foreign):
            _refuse_opcode(self)

    def _load_build(self) -> None:
        """Drop the attributes of an OrderedDict (`_metadata`: versions of layers) or of a `Foreign`."""
        self.stack.pop()
        if not isinstance(self.stack[-1], Dict | Foreign):
            raise RefusedError("its pickle sets attributes of something that is not a dict")

    dispatch = {  # noqa: RUF012 - a ClassVar of the base
        **dict.fromkeys(range(256), _refuse_opcode),
        **{code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES},
        pickle.EMPTY_DICT[0]: _load_empty_dict,  # type: ignore[dict-item]
        pickle.EMPTY_SET[0]: _load_empty_set,  # type: ignore[dict-item]
        pickle.ADDITEMS[0]: _load_additems,  # type: ignore[dict-item]
        pickle.FROZENSET[0]: _load_frozenset,  # type: ignore[dict-item]
        pickle.REDUCE[0]: _load_reduce,  # type: ignore[dict-item]
        pickle.NEWOBJ[0]: _load_newobj,  # type: ignore[dict-item]
        pickle.BUILD[0]: _load_build,  # type: ignore[dict-item]
    }


def one_line(error: Exception) -> str:
    """The type and the message of an error, at most 100 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:100]
