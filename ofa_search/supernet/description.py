"""Reads the description in a supernet file of this package, without the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.spaces import SearchSpace, known_space

SUFFIX = ".safetensors"
FORMAT = 1
METADATA_KEY = "supernet"


@dataclass(frozen=True)
class Description:
    """The space of a supernet, with its number of classes, and the whole JSON.

    `labels` names the classes in order, or is None. `accuracy` has the measured accuracies, or is empty.
    """

    space: SearchSpace
    json: Mapping[str, Any]
    labels: tuple[str, ...] | None
    accuracy: Mapping[str, Any]


def weights_path(path: Path) -> Path:
    """Return the weights file: for `NAME.json` the `NAME.safetensors` beside it, else the path itself."""
    return path.with_suffix(SUFFIX) if path.suffix == ".json" else path


def read_description(path: Path) -> Description:
    """Return the description that `write_checkpoint` put into the file. Raises `InputFileError`."""
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, OSError) as error:
        raise InputFileError(path, f"not a safetensors file, or cut short ({one_line(error)})") from error
    try:
        # NaN is not JSON, and documents that include the description must be JSON.
        data = json.loads(text, parse_constant=lambda _name: None) if text is not None else None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise InputFileError(path, "a safetensors file, but not of a supernet: its metadata lacks a description")
    space = _space(path, data)
    accuracy = data.get("accuracy")
    return Description(space, data, _labels(path, data, space), accuracy if isinstance(accuracy, dict) else {})


def _space(path: Path, data: Mapping[str, Any]) -> SearchSpace:
    if data.get("format") != FORMAT:
        raise InputFileError(path, f"format {data.get('format')!r:.60}, this version reads {FORMAT}")
    try:
        space = known_space(str(data.get("space")))
    except UsageError as error:
        raise InputFileError(path, str(error)) from error
    n_classes = data.get("n_classes")
    if isinstance(n_classes, bool) or not isinstance(n_classes, int) or n_classes < 1:
        raise InputFileError(path, f"n_classes is {n_classes!r:.60}, not a positive integer")
    return space.with_classes(n_classes)


def _labels(path: Path, data: Mapping[str, Any], space: SearchSpace) -> tuple[str, ...] | None:
    labels = data.get("labels")
    if labels is None:
        return None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputFileError(path, "its labels are not a list of texts")
    if len(labels) != space.n_classes:
        raise InputFileError(path, f"it has {space.n_classes} classes but {len(labels)} labels")
    return tuple(labels)


def check_space(path: Path, space: SearchSpace, wanted: SearchSpace | None) -> None:
    """Raise `InputFileError` if the file has a supernet of `space` but one of `wanted` is needed."""
    if wanted is not None and wanted.name != space.name:
        raise InputFileError(path, f"a supernet of space {space.name}, not of {wanted.name}")


def one_line(error: BaseException) -> str:
    """Return the first sentence of a library's message."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0][:160]
