"""Read the weights in a `.pth` file without torch, and without running anything that is in it.

Two layouts exist (torch/serialization.py): a zip archive with the members `data.pkl` and `data/KEY` for each storage,
and, before torch 1.6, five pickles in a row, followed by the storages. `restricted_pickle` reads the pickles.

A checkpoint of a training holds more than weights: the optimizer, numbers, options. Only the storages of the weights
are read from a zip archive.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ofa_profiler.errors import InputFileError
from ofa_search.artifacts.restricted_pickle import (
    MAX_PICKLE,
    Array,
    Dict,
    Foreign,
    RefusedError,
    Storage,
    Tensor,
    load_pickle,
    one_line,
)

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_BYTES = 1 << 30  # five times the largest published supernet

#: The names under which trainings save the weights of the network, and those of its moving average, best first.
_WEIGHTS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "supernet", "module", "weights")
_AVERAGES = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema", "module_ema")
_MAX_DEPTH = 3  # of wrappers around the weights

#: The first bytes of files that are no torch files, though their names say so.
_OTHER_FILES = {
    b"version https://git-lfs": "it is a Git LFS pointer, not the file itself: run git lfs pull, or download the file",
    b"<!doctype html": "it is a web page, not the file itself: download it again",
    b"<html": "it is a web page, not the file itself: download it again",
}


def read_state_dict(path: str | Path, *, max_bytes: int = _MAX_BYTES) -> dict[str, Array]:
    """Parameter name -> read-only array, from a state_dict or from a checkpoint that holds one.

    The weights of the network are preferred to those of its moving average. Raises `InputFileError` for a file that is
    missing, larger than `max_bytes`, truncated, damaged, or without named tensors.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise InputFileError(path, f"larger than {max_bytes >> 20} MiB, too large for a file of weights")
            begin = file.peek(64)[:64]
            for other, what in _OTHER_FILES.items():
                if begin.lstrip().lower().startswith(other):
                    raise RefusedError(what)
            return _read_zip(file, size) if begin[:2] == b"PK" else _read_legacy(file.read(max_bytes))
    except OSError as error:
        raise InputFileError(path, f"cannot be read: {error.strerror or error}") from error
    except RefusedError as error:
        raise InputFileError(path, f"not a torch file of tensors only: {error}") from None


# --- the two layouts ---------------------------------------------------------------------------------


def _read_legacy(data: bytes) -> dict[str, Array]:
    stream = io.BytesIO(data[:MAX_PICKLE])
    if load_pickle(stream) != _LEGACY_MAGIC or load_pickle(stream) != _LEGACY_PROTOCOL:
        raise RefusedError("it does not begin as one")
    system = load_pickle(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RefusedError("it was written on a big-endian machine")
    storages: dict[str, Storage] = {}
    weights = _weights(load_pickle(stream, storages))
    keys = load_pickle(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise RefusedError("its list of storages does not fit its tensors")
    position = stream.tell()
    for key in keys:
        storage = storages[key]
        if int.from_bytes(data[position : position + 8], "little") != storage.numel:
            raise RefusedError(f"storage {key[:60]!r} is truncated, or its tensors state another size")
        position = storage.fill(data, position + 8)
    return {name: tensor.array() for name, tensor in weights.items()}


def _read_zip(file: BinaryIO, size: int) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(file) as archive:
            return _read_archive(archive, size)
    # What zipfile raises for headers that make no sense.
    except (zipfile.BadZipFile, ValueError, OverflowError, EOFError, OSError, NotImplementedError) as error:
        raise RefusedError(f"it is a damaged zip archive ({one_line(error)})") from None


def _read_archive(archive: zipfile.ZipFile, size: int) -> dict[str, Array]:
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise RefusedError("it is a zip archive without a data.pkl")
    folder = pickles[0].removesuffix("data.pkl")

    def member(name: str, limit: int) -> bytes:
        info = members.get(folder + name)
        if info is None:
            raise RefusedError(f"it lacks {name[:60]!r}")
        # torch never compresses. A compressed member could grow to any size.
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
            raise RefusedError(f"{name[:60]!r} in it is compressed or encrypted")
        if info.file_size > limit:
            raise RefusedError(f"{name[:60]!r} in it has {info.file_size} bytes, more than {limit}")
        return archive.read(info)

    if folder + "byteorder" in members and member("byteorder", 100) != b"little":
        raise RefusedError("it was written on a big-endian machine")
    storages: dict[str, Storage] = {}
    weights = _weights(load_pickle(io.BytesIO(member("data.pkl", MAX_PICKLE)), storages))
    if sum(storage.nbytes for storage in storages.values()) > size:
        raise RefusedError("its storages are larger than the file")
    needed = {tensor.storage for tensor in weights.values()}
    for key, storage in storages.items():
        if storage in needed:
            storage.fill(member(f"data/{key}", storage.nbytes), 0)
    return {name: tensor.array() for name, tensor in weights.items()}


# --- the weights in a checkpoint -----------------------------------------------------------------------


def _weights(content: Any) -> Mapping[str, Tensor]:
    """The named tensors of the network. Raises `RefusedError`, which names what is there instead."""
    found = _find_weights(content, set())
    if found is None:  # the words below name what is wrong
        held = [content, *(content.get(name) for name in _WEIGHTS)] if isinstance(content, Dict) else [content]
        for value in held:
            if isinstance(value, Foreign):
                raise RefusedError(f"it holds an object of {value.name!r}; save its state_dict() instead")
        found = content.get("state_dict") if isinstance(content, Dict) else None
        found = found if isinstance(found, Dict) else content
    if isinstance(found, Dict) and found.is_odd:
        raise RefusedError("a dict in it has a key that is neither a text nor the number of a parameter")
    if not isinstance(found, Dict) or not found:
        raise RefusedError("it holds no state_dict")
    for name, tensor in found.items():
        if isinstance(tensor, Foreign):
            raise RefusedError(f"{str(name)[:60]!r} in it refers to {tensor.name!r}, which no state_dict needs")
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise RefusedError(f"{str(name)[:60]!r} in its state_dict is not a tensor with a name")
    return found


def _find_weights(content: Any, seen: set[int], depth: int = 0) -> Dict | None:
    """The dict with tensors under one of the known names, or `content`, or the only other dict with tensors in it."""
    if not isinstance(content, Dict) or id(content) in seen or depth > _MAX_DEPTH:
        return None
    seen.add(id(content))  # a dict can hold itself
    for name in _WEIGHTS + _AVERAGES:
        if (found := _find_weights(content.get(name), seen, depth + 1)) is not None:
            return found
    if any(isinstance(value, Tensor) for value in content.values()):
        return content
    others = dict(_others(content, seen, depth))
    if len(others) > 1:
        raise RefusedError(f"it holds several state_dicts: {', '.join(map(repr, list(others)[:4]))}; save one of them")
    return next(iter(others.values()), None)


def _others(content: Dict, seen: set[int], depth: int) -> Iterable[tuple[str, Dict]]:
    for name, value in content.items():
        known = not isinstance(name, str) or name in _WEIGHTS + _AVERAGES or "optim" in name.lower()
        if not known and (found := _find_weights(value, seen, depth + 1)) is not None:
            yield name[:40], found


def without_prefix(arrays: Mapping[str, Array], anchor: str) -> dict[str, Array]:
    """`arrays` without what wrappers put before every name: `module.` (DataParallel), `_orig_mod.` (torch.compile), …

    `anchor` is a name that the network has. Arrays of other networks in the file are left out. If no name or more than
    one ends in `anchor`, all arrays are returned as they are.
    """
    prefixes = [name.removesuffix(anchor) for name in arrays if name == anchor or name.endswith(f".{anchor}")]
    if len(prefixes) != 1:
        return dict(arrays)
    return {n.removeprefix(prefixes[0]): array for n, array in arrays.items() if n.startswith(prefixes[0])}
