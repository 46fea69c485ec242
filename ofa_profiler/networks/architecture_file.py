"""Reads the files that hold architectures: JSON of this package, documents of a search, files of the OFA authors."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ofa_profiler.errors import InputFileError

_NET_CONFIG, _RUN_CONFIG = "net.config", "run.config"
_MAX_BYTES = 4 << 20


def find_file(path: Path) -> Path:
    """The file itself: `path` can be a folder with a `net.config`. Raises `InputFileError` for another folder."""
    path = path / _NET_CONFIG if (path / _NET_CONFIG).is_file() else path
    if path.is_dir():
        raise InputFileError(path, "a folder; give the JSON file of one architecture in it")
    return path


def read_documents(path: Path) -> list[Any]:
    """The architectures in a file, as plain data: alone, in the results of a search, or in a list.

    A Python literal is read too. The resolution of a `net.config` is that of the `run.config` beside it. Raises
    `InputFileError`.
    """
    found = [entry.get("architecture", entry) if isinstance(entry, dict) else entry for entry in read_entries(path)]
    beside = _run_config(path)
    if beside is None:
        return found
    run = _read_file(beside)
    if not isinstance(run, Mapping):
        raise InputFileError(beside, "not a JSON object")
    size = {"image_size": run.get("image_size")}
    return [{**size, **data} if isinstance(data, dict) else data for data in found]


def read_entries(path: Path) -> list[Any]:
    """The networks in a file with all that is said about them. Raises `InputFileError`."""
    data = _read_file(path)
    if isinstance(data, dict) and isinstance(data.get("results"), list):
        return list(data["results"])
    if isinstance(data, list | tuple):  # such as accuracy, settings and latency, which the authors' search returns
        return [item for item in data if isinstance(item, dict)] or [data]
    return [data]


def _read_file(path: Path) -> Any:
    """The value in a file: JSON, or a Python literal. Raises `InputFileError`."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(text) > _MAX_BYTES:
        raise InputFileError(path, f"larger than {_MAX_BYTES >> 20} MiB, too large for an architecture")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = error
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise InputFileError(path, f"not JSON ({problem})") from problem


def _run_config(path: Path) -> Path | None:
    """The file with the resolution beside `NAME.net.config` or `net.config`."""
    if not path.name.endswith(_NET_CONFIG):
        return None
    own = path.with_name(path.name.removesuffix(_NET_CONFIG) + _RUN_CONFIG)
    return next((file for file in (own, path.with_name(_RUN_CONFIG)) if file.is_file()), None)
