"""Supernets on disk, in numpy: files of this package, and files that the OFA authors' code saves.

A file of this package is `NAME.safetensors`. It contains the tensors under the names of `Supernet.state_dict()`.
It can contain images or a table that give a subnet its own BatchNorm statistics, and a table of ranges for int8. A
JSON text in its metadata describes the supernet. `NAME.json` beside it is a copy of that text for people and scripts.
The copy is never read back, so the two cannot contradict each other.

The authors' files are pickles of a dict with a `state_dict`; so are the checkpoints of other people's trainings, in
which names can have a prefix and the classifier any number of classes. `torch_file` reads them without running
anything in them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save_file

from ofa_profiler.base.files import replacing, write_text
from ofa_profiler.base.version import __version__
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.parameters import Array
from ofa_profiler.networks.ranges import TABLE, Ranges
from ofa_profiler.networks.tensors import Shape, Span
from ofa_profiler.spaces import SearchSpace, as_space, space_names
from ofa_search.artifacts.folders import refuse_folder
from ofa_search.artifacts.torch_file import read_state_dict, without_prefix
from ofa_search.supernet.bn_statistics import StatisticsTable
from ofa_search.supernet.description import (
    FORMAT,
    METADATA_KEY,
    SUFFIX,
    check_space,
    one_line,
    read_description,
    weights_path,
)
from ofa_search.supernet.ofa_names import published_names, simplified
from ofa_search.supernet.subnet_weights import subnet_weights, supernet_shapes

_CALIBRATION, _STATISTICS, _RANGES = "calibration", "statistics.", "ranges."
#: The types of safetensors that hold weights or images; bfloat16, which numpy lacks, is the upper half of a float32.
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1"}

#: What the authors' files contain beside the weights: a counter of BatchNorm, and the counters that thop leaves.
_IGNORED = ("num_batches_tracked", "total_ops", "total_params")

#: The source of a subnet's own BatchNorm statistics: pixels (N, 3, S, S) for measuring them, or a table of them.
Calibration = NDArray[np.uint8] | StatisticsTable


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A supernet as numpy arrays.

    `tensors` are float32, named as in `Supernet.state_dict()`. `description` is the JSON of a file of this
    package, and empty for other files. `calibration` is None if the file has no source of BatchNorm statistics.
    `ranges` has those of all tensors of all subnets (`evaluation/ranges.py`), or is None.
    """

    space: SearchSpace
    tensors: Mapping[str, Array]
    description: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    ranges: Ranges | None = None

    @property
    def needs_images(self) -> bool:
        """Whether its subnets get their BatchNorm statistics from images, which takes torch."""
        return self.calibration is not None and not isinstance(self.calibration, StatisticsTable)

    def weights(self, architecture: Architecture) -> dict[str, Array]:
        """Return copies of the weights of a subnet, with its own statistics if the file has a table of them."""
        layout = self.space.layout(architecture)
        weights = {name: np.array(tensor) for name, tensor in subnet_weights(layout, self.tensors).items()}
        if isinstance(self.calibration, StatisticsTable):
            return self.calibration.applied(layout, weights)
        return weights


# --- reading -----------------------------------------------------------------------------------------


def read_checkpoint(path: str | Path, space: SearchSpace | str | None = None) -> Checkpoint:
    """Read a supernet. A file of the OFA authors does not name its `space`, so the caller must.

    The number of classes is that of the file.

    Raises `InputFileError` for a file that does not hold a whole supernet of that space.
    """
    path = weights_path(Path(path))
    refuse_folder(path)
    if not path.is_file():
        raise InputFileError(path, "no such file")
    space = None if space is None else as_space(space)
    return _read_own(path, space) if path.suffix == SUFFIX else _read_published(path, space)


def _read_own(path: Path, space: SearchSpace | None) -> Checkpoint:
    description = read_description(path)
    check_space(path, description.space, space)
    arrays = _read_safetensors(path)
    calibration, ranges = _pop_calibration(path, arrays), _pop_ranges(path, arrays)
    shapes = supernet_shapes(description.space)
    tensors = _checked(path, description.space, shapes, {name: name for name in shapes}, arrays)
    return Checkpoint(description.space, tensors, description.json, calibration, ranges)


def _read_published(path: Path, space: SearchSpace | None) -> Checkpoint:
    if space is None:
        raise UsageError(f"{path} does not name its search space; pass one of {', '.join(space_names())}")
    arrays = {simplified(n): array for n, array in read_state_dict(path).items() if not n.endswith(_IGNORED)}
    shapes = supernet_shapes(space)
    names = published_names(shapes, (slot.name for slot in space.slots))
    arrays = without_prefix(arrays, next(iter(names.values())))
    classifier = next(name for name in reversed(shapes) if name.endswith(".weight"))
    weight = arrays.get(names[classifier])
    if weight is not None and weight.ndim == 2 and weight.shape[1:] == shapes[classifier][1:] and len(weight):
        space = space.with_classes(len(weight))
        shapes = supernet_shapes(space)
    return Checkpoint(space, _checked(path, space, shapes, names, arrays))


def _read_safetensors(path: Path) -> dict[str, Array]:
    try:
        stored = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as error:
        raise InputFileError(path, f"not a safetensors file, or cut short ({one_line(error)})") from error
    arrays = {}
    for name, tensor in stored:
        dtype = tensor["dtype"]
        if dtype not in _DTYPES:
            raise InputFileError(path, f"{name!r} has type {dtype}; supernets have {', '.join(_DTYPES)}")
        values = np.frombuffer(tensor["data"], _DTYPES[dtype])
        if dtype == "BF16":
            values = (values.astype("<u4") << 16).view("<f4")
        arrays[name] = values.reshape(tensor["shape"])
    return arrays


def _pop_calibration(path: Path, arrays: dict[str, Array]) -> Calibration | None:
    """Remove the calibration from the arrays of a file and return it. Raises `InputFileError`."""
    pixels = arrays.pop(_CALIBRATION, None)
    named = [name for name in arrays if name.startswith(_STATISTICS)]
    entries = {name.removeprefix(_STATISTICS): arrays.pop(name) for name in named}
    if pixels is not None:
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3 or not len(pixels):
            raise InputFileError(
                path, f"its calibration images are {pixels.dtype} {pixels.shape}, not uint8 (N, 3, S, S)"
            )
        return pixels
    for key, entry in entries.items():
        if entry.ndim != 2 or len(entry) != 2 or not np.isfinite(entry).all() or (entry[1] < 0).any():
            raise InputFileError(path, f"its statistics for {key!r} are not means and variances")
    return StatisticsTable({key: entry.astype(np.float32) for key, entry in entries.items()}) if entries else None


def _pop_ranges(path: Path, arrays: dict[str, Array]) -> Ranges | None:
    """Remove the table of ranges from the arrays of a file and return it. Raises `InputFileError`."""
    named = [name for name in arrays if name.startswith(_RANGES)]
    spans = {name.removeprefix(_RANGES): arrays.pop(name) for name in named}
    for name, span in spans.items():
        if span.shape != (2,) or not np.isfinite(span).all() or span[0] > span[1]:
            raise InputFileError(path, f"its range of {name!r} is not a lower and an upper end")
    return Ranges({name: Span(*map(float, span)) for name, span in spans.items()}, TABLE) if spans else None


def _checked(
    path: Path,
    space: SearchSpace,
    shapes: Mapping[str, Shape],
    names: Mapping[str, str],
    arrays: Mapping[str, Array],
) -> dict[str, Array]:
    """Return the arrays in float32 under our names; `names` maps our name to the name in the file.

    Raises `InputFileError` unless they are exactly the tensors of a supernet of that space.
    """
    where = f"check that it is a supernet of {space.name}"
    tensors = {}
    for name, theirs in names.items():
        if theirs not in arrays:
            raise InputFileError(path, f"{theirs!r} is missing; {where}")
        array = arrays[theirs]
        if array.shape != shapes[name]:
            raise InputFileError(path, f"{theirs!r} has shape {array.shape}, not {shapes[name]}; {where}")
        with np.errstate(over="ignore"):  # values become infinite and are refused below
            tensors[name] = np.asarray(array, dtype=np.float32)
        if array.dtype.kind != "f" or not np.isfinite(tensors[name]).all():
            raise InputFileError(path, f"{theirs!r} holds values that are not finite numbers")
        if name.endswith("running_var") and (tensors[name] < 0).any():
            raise InputFileError(path, f"{theirs!r} holds a negative variance")
    expected = set(names.values())
    for theirs in arrays:
        if theirs not in expected:
            raise InputFileError(path, f"{theirs!r} is not expected; {where}")
    return tensors


# --- writing -----------------------------------------------------------------------------------------


def write_checkpoint(checkpoint: Checkpoint, path: str | Path, *, dtype: DTypeLike = np.float32) -> Path:
    """Write `NAME.safetensors`, completely or not at all, and `NAME.json` beside it. Return the former.

    `dtype` is the type of the stored weights: `numpy.float16` halves the file. The JSON contains the description of the
    checkpoint. Raises `UsageError` for values that `dtype` cannot represent.
    """
    path, dtype = Path(path), np.dtype(dtype)
    if path.suffix != SUFFIX:
        path = path.with_name(path.name + SUFFIX)
    arrays = {name: _stored(name, tensor, dtype) for name, tensor in checkpoint.tensors.items()}
    if isinstance(checkpoint.calibration, StatisticsTable):
        for key, entry in checkpoint.calibration.entries.items():
            arrays[_STATISTICS + key] = _stored(key, entry, dtype)
    elif checkpoint.calibration is not None:
        arrays[_CALIBRATION] = np.ascontiguousarray(checkpoint.calibration)
    if checkpoint.ranges is not None:
        arrays |= {_RANGES + name: np.array(span, np.float32) for name, span in checkpoint.ranges.spans.items()}
    about_file = {
        "format": FORMAT,
        "space": checkpoint.space.name,
        "n_classes": checkpoint.space.n_classes,
        "dtype": dtype.name,
        "tool_version": __version__,
    }
    text = json.dumps(about_file | {**checkpoint.description} | about_file, indent=2, allow_nan=False)
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata={METADATA_KEY: text})
    write_text(path.with_suffix(".json"), text + "\n")
    return path


def _stored(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array, dtype=dtype)
    if not np.isfinite(stored).all():
        raise UsageError(f"{name} has values that {dtype.name} cannot represent")
    return stored
