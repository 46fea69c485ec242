"""What the inputs of a user's model get: shapes by `--shape`, values by `--inputs`, else made-up valid ones."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.models.base import Array, ModelInput
from ofa_profiler.networks.tensors import Shape

#: For integer inputs whose use the graph does not tell: valid as an index into almost any table, and as a mask.
_DEFAULT_RANGE = (0, 2)
_SEED = 0
_LARGEST_SIZE = 2**31


def parse_shapes(texts: Sequence[str], inputs: Sequence[ModelInput]) -> dict[str, Shape]:
    """The shapes in values of `--shape` like `INPUT=1x3x224x224`. A model with one input needs no name.

    Raises `UsageError`.
    """
    shapes: dict[str, Shape] = {}
    names = [each.name for each in inputs]
    for text in texts:
        name, is_named, sizes = text.rpartition("=")
        if not is_named:
            if len(names) != 1:
                raise UsageError(f"--shape {text!r:.80}: which input? Give NAME={text} with one of {_listed(names)}")
            name = names[0]
        if name not in names:
            raise UsageError(f"--shape {text!r:.80}: the model has no input {name!r:.60}; it has {_listed(names)}")
        if name in shapes:
            raise UsageError(f"--shape is given twice for the input {name!r:.60}")
        shapes[name] = _parse_sizes(sizes, text)
    return shapes


def _parse_sizes(sizes: str, text: str) -> Shape:
    parts = [part.strip() for part in sizes.split("x")] if sizes.strip() else []
    if not all(re.fullmatch(r"[0-9]{1,10}", part) and 0 < int(part) < _LARGEST_SIZE for part in parts):
        raise UsageError(f"--shape {text!r:.80} is not like INPUT=1x3x224x224")
    return tuple(map(int, parts))


def read_inputs(path: Path) -> dict[str, Array]:
    """The arrays of an NPZ file by their names. Raises `InputFileError`."""
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise InputFileError(path, "has one array without a name; save it by numpy.savez(FILE, INPUT=array)")
        with file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise InputFileError(path, "there is no such file") from None
    except OSError as error:
        raise InputFileError(path, f"cannot be read: {error.strerror or 'it is no NPZ file'}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError) as error:
        is_numpy = isinstance(error, ValueError) and path.read_bytes()[:2] in (b"PK", b"\x93N")
        why = (
            "contains Python objects"
            if is_numpy and "allow_pickle" in str(error)
            else "is no NPZ file, or a damaged one"
        )
        raise InputFileError(path, f"{why}; save arrays by numpy.savez(FILE, INPUT=array)") from error


def as_arrays(values: Mapping[str, ArrayLike] | None) -> dict[str, Array] | None:
    """What a caller gives as `inputs`, as arrays by names. Raises `UsageError`."""
    try:
        found = None if values is None else {name: np.asarray(value) for name, value in dict(values).items()}
    except (TypeError, ValueError):
        found = {"": np.array(None)}
    if any(array.dtype.kind not in "biuf" for array in (found or {}).values()):
        raise UsageError('inputs are arrays of numbers by the names of the inputs, like {"image": array}')
    return found


def feeds_for(
    inputs: Sequence[ModelInput], shapes: Mapping[str, Shape], arrays: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """Input -> the array that it gets, the same every time. `arrays` are real inputs; they may lack some.

    Made-up floats lie in [-1, 1], integers in the range that the graph tells, else in [0, 2). 8-bit integers have all
    values, since they are images or quantized tensors. Raises `UsageError` for shapes and arrays that do not fit, and
    for an open shape.
    """
    arrays = arrays or {}
    names = [each.name for each in inputs]
    if unknown := arrays.keys() - set(names):
        raise UsageError(f"--inputs has {min(unknown)!r:.60}, but the model has the inputs {_listed(names)}")
    sizes: dict[str, int] = {}
    for each in inputs:
        given = arrays[each.name].shape if each.name in arrays else shapes.get(each.name)
        if given is not None:
            _check_shape(each, given, sizes)
            if 0 in given:
                raise UsageError(f"--inputs: {each.name!r:.60} has no elements (its shape is {_joined(given)})")
        if each.name in arrays and each.name in shapes and shapes[each.name] != arrays[each.name].shape:
            raise UsageError(
                f"input {each.name!r:.60}: --shape and --inputs have different shapes; omit --shape for this input"
            )
    return {
        each.name: _checked(each, arrays[each.name])
        if each.name in arrays
        else _made_up(each, _shape_of(each, shapes, sizes), position)
        for position, each in enumerate(inputs)
    }


def _check_shape(each: ModelInput, given: Sequence[int], sizes: dict[str, int]) -> None:
    """Raise `UsageError` if a shape contradicts that of the file, or an open dimension of the same name before."""
    fits = len(given) == len(each.shape)
    for size, declared in zip(given, each.shape, strict=False):
        if isinstance(declared, str):
            fits &= declared == "?" or sizes.setdefault(declared, size) == size
        else:
            fits &= declared in (size, 0, -1)
    if not fits:
        known = ", ".join(f"{name}={size}" for name, size in sizes.items())
        more = f" with {known}" if known else ""
        raise UsageError(f"input {each.name!r:.60} has the shape {declared_shape(each)}{more}, not {_joined(given)}")


def _shape_of(each: ModelInput, shapes: Mapping[str, Shape], sizes: Mapping[str, int]) -> Shape:
    """The shape that is given, or that follows from the file and the open dimensions of other inputs."""
    if each.name in shapes:
        return shapes[each.name]
    known = [sizes.get(size, 0) if isinstance(size, str) else size for size in each.shape]
    if any(size < 1 for size in known):
        example = "x".join(str(size) if size > 0 else "N" for size in known)
        raise UsageError(
            f"input {each.name!r:.60} has the open shape {declared_shape(each)}: give --shape {each.name}={example}"
        )
    return tuple(known)


def _checked(each: ModelInput, array: Array) -> Array:
    """Real input of the type of the model. Raises `UsageError` if it would lose values."""
    dtype = np.dtype(each.dtype)
    if array.dtype != dtype and not np.can_cast(array.dtype, dtype, "same_kind"):
        raise UsageError(f"--inputs: {each.name!r:.60} is {array.dtype}, but the model takes {dtype}")
    converted = np.ascontiguousarray(array.astype(dtype)).reshape(array.shape)
    if dtype.kind in "iu" and not np.array_equal(converted, array):
        raise UsageError(f"--inputs: {each.name!r:.60} has values that {dtype} does not hold")
    return converted


def _made_up(each: ModelInput, shape: Shape, position: int) -> Array:
    generator = np.random.default_rng([_SEED, position])
    dtype = np.dtype(each.dtype)
    if dtype.kind == "f":
        return generator.uniform(-1, 1, shape).astype(dtype)
    if dtype.kind == "b":
        return np.ones(shape, bool)
    low, high = each.range or (
        (np.iinfo(dtype).min, np.iinfo(dtype).max + 1) if dtype.itemsize == 1 else _DEFAULT_RANGE
    )
    return generator.integers(low, high, shape, dtype=np.int64).astype(dtype)


def declared_shape(each: ModelInput) -> str:
    """The shape in the file, like `1x3x?x?` or `batchx10`; `scalar` without dimensions."""
    return _joined(each.shape)


def _joined(shape: Sequence[int | str]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:6])
    return shown + (", ..." if len(names) > 6 else "") if names else "no inputs"
