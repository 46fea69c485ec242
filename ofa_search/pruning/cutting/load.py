"""A pruned network from its files: `load_pruned(folder)`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.models.torch_export import is_module_name, load_module
from ofa_search.pruning.cutting.cut import apply_record
from ofa_search.pruning.cutting.record import CutRecord

#: Its value is kept in the state dict by BatchNorm layers that train; networks compute nothing with it.
_COUNTER = "num_batches_tracked"


def load_pruned(path: str | os.PathLike[str], module: nn.Module | None = None) -> nn.Module:
    """The pruned network of a folder, or of a JSON file in it, with its weights and in eval mode.

    The whole network comes from the function that the JSON names, which is called (so read only files of people whom
    you would let run code), or is `module`, which is cut in place. Raises `InputFileError`.
    """
    file = _document_in(Path(path))
    document = _read(file)
    try:
        record = CutRecord.from_json(document["record"])
    except UsageError as error:
        raise InputFileError(file, str(error)) from None
    weights = _weights(file, document)
    if module is None:
        module = _whole_network(file, document.get("model"))
    try:
        apply_record(module, record)
    except UsageError as error:
        raise InputFileError(file, f"not for this network: {error}") from None
    _fill(module, weights, file)
    return module.eval()


def _document_in(path: Path) -> Path:
    """The file itself, or the only one of the folder that has a record."""
    if not path.is_dir():
        return path
    found = []
    for each in sorted(path.glob("*.json")):
        try:
            _read(each)
        except InputFileError:
            continue
        found.append(each)
    if len(found) != 1:
        names = ", ".join(each.name for each in found)
        problem = f"several pruned networks: give one of {names}" if found else "no JSON file of a pruned network"
        raise InputFileError(path, problem)
    return found[0]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise InputFileError(path, f"cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise InputFileError(path, f"no JSON, or cut short ({error})") from None
    if not isinstance(document, dict) or "record" not in document:
        raise InputFileError(path, "JSON, but not of a pruned network: it has no 'record'")
    return document


def _weights(path: Path, document: Mapping[str, Any]) -> dict[str, Tensor]:
    files = document.get("files")
    name = files.get("weights") if isinstance(files, dict) else document.get("weights")
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
        raise InputFileError(path, "names no file NAME.safetensors beside it as its 'weights'")
    file = path.with_name(name)
    try:
        return load_file(file)
    except OSError as error:
        raise InputFileError(file, f"cannot be read ({error.strerror or error})") from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputFileError(file, f"no safetensors file, or cut short ({error})") from None


def _whole_network(path: Path, name: object) -> nn.Module:
    if not isinstance(name, str) or not is_module_name(name):
        raise InputFileError(path, "'model' names no function package.module:function; give the network as module=")
    try:
        return load_module(name)
    except UsageError as error:
        raise InputFileError(path, str(error).removeprefix("--")) from None


def _fill(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    own = module.state_dict()
    missing = sorted(name for name in own.keys() - weights.keys() if not name.endswith(_COUNTER))
    for names, problem in ((missing, "has no"), (sorted(weights.keys() - own.keys()), "has more than the network:")):
        if names:
            raise InputFileError(path, f"its file of weights {problem} {names[0]!r:.80} ({len(names)} in all)")
    for name, tensor in weights.items():
        if own[name].shape != tensor.shape:
            shapes = f"{tuple(tensor.shape)}, and the network needs {tuple(own[name].shape)}"
            raise InputFileError(path, f"its file of weights has {name} of shape {shapes}")
    module.load_state_dict(dict(weights), strict=False)
