"""Supernets on disk: our own files, and those that the OFA authors' code saves.

Ours is `NAME.safetensors`: the weights under the names of `Supernet.state_dict()`, and in the file's own
metadata a JSON text that says what they are. `NAME.json` beside it is a copy of that text for people
and scripts; it is never read back, so the two cannot contradict each other.

The authors' files are pickles of a dict with a `state_dict`. They are read with torch's restricted
unpickler, which builds tensors and plain containers and runs nothing.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

import ofa_profiler
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.files import replacing, write_text
from ofa_profiler.spaces import SearchSpace, get_space, space_names
from ofa_search.supernet.published import published_names, simplified
from ofa_search.supernet.supernet import Supernet

FORMAT = 1
_METADATA_KEY = "supernet"


def load_supernet(path: str | Path, space: SearchSpace | str | None = None) -> Supernet:
    """See `Supernet.from_checkpoint`."""
    path = Path(path)
    if path.suffix == ".json":
        path = path.with_suffix(".safetensors")
    if not path.is_file():
        raise InputFileError(path, "no such file")
    if isinstance(space, str):
        space = get_space(space)
    if path.suffix == ".safetensors":
        metadata, tensors = read_weights(path)
        space = _own_space(path, metadata, space)
        supernet = Supernet(space)
        names = {name: name for name in supernet.state_dict()}
    else:
        if space is None:
            raise UsageError(f"{path} does not say which search space it is of; name it: {', '.join(space_names())}")
        tensors = _read_pickle(path)
        supernet = Supernet(space)
        names = published_names(supernet.state_dict(), (slot.name for slot in space.slots))
    _fill(supernet, path, names, tensors)
    return supernet.eval()


def save_supernet(
    supernet: Supernet,
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write `NAME.safetensors`, whole or not at all, and `NAME.json` beside it; returns the former.

    `dtype` is that of the stored weights (`torch.float16` halves the file; running variances outside its
    range are refused). `metadata` is added to the JSON.
    """
    path = Path(path).with_suffix(".safetensors")
    tensors = {name: _stored(name, tensor, dtype) for name, tensor in supernet.state_dict().items()}
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
        save_file(tensors, temporary, metadata={_METADATA_KEY: text})
    write_text(path.with_suffix(".json"), text + "\n")
    return path


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    stored = tensor.detach().to("cpu", dtype).contiguous()
    if not torch.isfinite(stored).all():
        raise UsageError(f"{name} holds values that {str(dtype).removeprefix('torch.')} cannot")
    return stored


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors of a file that `save_supernet` wrote. Raises `InputFileError`."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (safetensors.SafetensorError, OSError) as error:
        raise InputFileError(path, f"not a safetensors file, or cut short ({_one_line(error)})") from error
    try:
        metadata = json.loads(text) if text is not None else None
    except json.JSONDecodeError:
        metadata = None
    if not isinstance(metadata, dict):
        raise InputFileError(path, "a safetensors file, but not of a supernet: its metadata lacks a description")
    return metadata, tensors


def _own_space(path: Path, metadata: Mapping[str, Any], wanted: SearchSpace | None) -> SearchSpace:
    if metadata.get("format") != FORMAT:
        raise InputFileError(path, f"format {metadata.get('format')!r}, this version reads {FORMAT}")
    try:
        space = get_space(str(metadata.get("space")))
    except UsageError as error:
        raise InputFileError(path, str(error)) from error
    if wanted is not None and wanted.name != space.name:
        raise InputFileError(path, f"a supernet of space {space.name}, not of {wanted.name}")
    n_classes = metadata.get("n_classes")
    if isinstance(n_classes, bool) or not isinstance(n_classes, int) or n_classes < 1:
        raise InputFileError(path, f"n_classes is {n_classes!r}, not a positive integer")
    return space.with_classes(n_classes)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputFileError(path, f"not a checkpoint of tensors only ({_one_line(error)})") from error
    except Exception as error:  # a damaged file makes the unpickler fail in any way it can
        raise InputFileError(path, f"not a PyTorch checkpoint, or cut short ({_one_line(error)})") from error
    if isinstance(data, Mapping) and "state_dict" in data:
        data = data["state_dict"]
    if not isinstance(data, Mapping) or not data:
        raise InputFileError(path, "holds no state_dict")
    for name, tensor in data.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputFileError(path, f"its state_dict holds {name!r}, which is not a named tensor")
    return {simplified(name): tensor for name, tensor in data.items() if not name.endswith("num_batches_tracked")}


def _fill(supernet: Supernet, path: Path, names: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into the supernet; `names` gives, for each of its own names, theirs."""
    where = f"is it a supernet of {supernet.space.name}?"
    own = supernet.state_dict()
    for name, theirs in names.items():
        if theirs not in tensors:
            raise InputFileError(path, f"{theirs!r} is missing; {where}")
        tensor, shape = tensors[theirs], tuple(own[name].shape)
        if tuple(tensor.shape) != shape:
            raise InputFileError(path, f"{theirs!r} has shape {tuple(tensor.shape)}, not {shape}; {where}")
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
            own[name].copy_(tensors[theirs])


def _one_line(error: BaseException) -> str:
    """The first sentence of a library's message."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0][:160]
