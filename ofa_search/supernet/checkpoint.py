"""Supernets on disk: our own files, and those that the OFA authors' code saves.

Ours is `NAME.safetensors`: the weights under the names of `Supernet.state_dict()`, if there are any the
images that BatchNorm is recalibrated with or a table of its statistics, and in the file's own metadata a
JSON text that says what it is. `NAME.json` beside it is a copy of that text for people and scripts; it is
never read back, so the two cannot contradict each other.

The authors' files are pickles of a dict with a `state_dict`; `torch_file` reads them without running anything in them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import ofa_profiler
from ofa_profiler.base.files import replacing, write_text
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.spaces import SearchSpace, get_space, space_names
from ofa_search.artifacts.supernet_file import (
    FORMAT,
    METADATA_KEY,
    SUFFIX,
    check_space,
    one_line,
    read_description,
    weights_path,
)
from ofa_search.artifacts.torch_file import Array, read_state_dict
from ofa_search.supernet.bn_statistics import StatisticsTable
from ofa_search.supernet.ofa_names import published_names, simplified
from ofa_search.supernet.supernet import Supernet

_CALIBRATION, _STATISTICS = "calibration", "statistics."

#: What gives a subnet BatchNorm statistics of its own: pixels (N, 3, S, S) uint8 to take them from, or a table of them.
Calibration = Tensor | StatisticsTable


@dataclass(frozen=True, eq=False)
class TrainedSupernet:
    """A supernet from a file, and what belongs to it.

    `description` is the JSON of a file of ours, empty for others. `calibration` is None where the file says
    nothing of the BatchNorm statistics of its subnets.
    """

    supernet: Supernet
    description: Mapping[str, Any]
    calibration: Calibration | None


def load_supernet(path: str | Path, space: SearchSpace | str | None = None) -> Supernet:
    """See `Supernet.from_checkpoint`."""
    return load_trained(path, space).supernet


def load_trained(path: str | Path, space: SearchSpace | str | None = None) -> TrainedSupernet:
    """As `Supernet.from_checkpoint`, with all else that the file holds."""
    path = weights_path(Path(path))
    if not path.is_file():
        raise InputFileError(path, "no such file")
    if isinstance(space, str):
        space = get_space(space)
    metadata: Mapping[str, Any] = {}
    calibration: Calibration | None = None
    tensors: Mapping[str, Tensor | Array]
    if path.suffix == SUFFIX:
        description = read_description(path)
        check_space(path, description.space, space)
        space, metadata = description.space, description.json
        tensors = own = _read_tensors(path)
        calibration = _taken_calibration(path, own)
        supernet = Supernet(space)
        names = {name: name for name in supernet.state_dict()}
    else:
        if space is None:
            raise UsageError(f"{path} does not say which search space it is of; name it: {', '.join(space_names())}")
        tensors = _read_pickle(path)
        supernet = Supernet(space)
        names = published_names(supernet.state_dict(), (slot.name for slot in space.slots))
    _fill(supernet, path, names, tensors)
    return TrainedSupernet(supernet.eval(), metadata, calibration)


def _taken_calibration(path: Path, tensors: dict[str, Tensor]) -> Calibration | None:
    """Take out of the tensors of a file what calibrates subnets. Raises `InputFileError`."""
    pixels = tensors.pop(_CALIBRATION, None)
    entries = {
        name.removeprefix(_STATISTICS): tensors.pop(name) for name in list(tensors) if name.startswith(_STATISTICS)
    }
    if pixels is not None:
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3 or not len(pixels):
            shape = f"{pixels.dtype} {tuple(pixels.shape)}"
            raise InputFileError(path, f"its calibration images are {shape}, not uint8 (N, 3, S, S)")
        return pixels
    for key, entry in entries.items():
        if entry.ndim != 2 or len(entry) != 2 or not torch.isfinite(entry).all() or (entry[1] < 0).any():
            raise InputFileError(path, f"its statistics for {key!r} are not means and variances")
    return StatisticsTable({key: entry.float().numpy() for key, entry in entries.items()}) if entries else None


def save_supernet(
    supernet: Supernet,
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    metadata: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
) -> Path:
    """Write `NAME.safetensors`, whole or not at all, and `NAME.json` beside it; returns the former.

    `dtype` is that of the stored weights (`torch.float16` halves the file; running variances outside its
    range are refused). `metadata` is added to the JSON. `calibration`: see `TrainedSupernet`.
    """
    path = Path(path).with_suffix(SUFFIX)
    tensors = {name: _stored(name, tensor, dtype) for name, tensor in supernet.state_dict().items()}
    if isinstance(calibration, StatisticsTable):
        for key, entry in calibration.entries.items():
            tensors[_STATISTICS + key] = _stored(key, torch.from_numpy(entry), dtype)
    elif calibration is not None:
        tensors[_CALIBRATION] = calibration.cpu().contiguous()
    description = {
        "format": FORMAT,
        "space": supernet.space.name,
        "n_classes": supernet.space.n_classes,
        "dtype": str(dtype).removeprefix("torch."),
        "tool_version": ofa_profiler.__version__,
        **(metadata or {}),
    }
    text = json.dumps(description, indent=2, allow_nan=False)
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: text})
    write_text(path.with_suffix(".json"), text + "\n")
    return path


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    stored = tensor.detach().to("cpu", dtype).contiguous()
    if not torch.isfinite(stored).all():
        raise UsageError(f"{name} holds values that {str(dtype).removeprefix('torch.')} cannot")
    return stored


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputFileError(path, f"not a safetensors file, or cut short ({one_line(error)})") from error


def _read_pickle(path: Path) -> dict[str, Array]:
    arrays = read_state_dict(path)
    return {simplified(name): array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}


def _fill(supernet: Supernet, path: Path, names: Mapping[str, str], tensors: Mapping[str, Tensor | Array]) -> None:
    """Copy `tensors` into the supernet; `names` gives, for each of its own names, theirs."""
    where = f"is it a supernet of {supernet.space.name}?"
    own = supernet.state_dict()
    for name, theirs in names.items():
        if theirs not in tensors:
            raise InputFileError(path, f"{theirs!r} is missing; {where}")
        given, shape = tuple(tensors[theirs].shape), tuple(own[name].shape)
        if given != shape:
            raise InputFileError(path, f"{theirs!r} has shape {given}, not {shape}; {where}")
        tensor = _as_tensor(tensors[theirs])
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise InputFileError(path, f"{theirs!r} holds values that are not finite numbers")
        if name.endswith("running_var") and (tensor < 0).any():
            raise InputFileError(path, f"{theirs!r} holds a negative variance")
    expected = set(names.values())
    for theirs in tensors:
        if theirs not in expected:
            raise InputFileError(path, f"{theirs!r} is not expected; {where}")
    with torch.no_grad():
        for name, theirs in names.items():
            own[name].copy_(_as_tensor(tensors[theirs]))


def _as_tensor(values: Tensor | Array) -> Tensor:
    return values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
