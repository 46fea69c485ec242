"""The formats of model files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ofa_profiler.errors import InputFileError
from ofa_profiler.models.base import UserModel
from ofa_profiler.models.onnx_model import OnnxModel
from ofa_profiler.models.tflite_model import TfliteModel

_FORMATS: Mapping[str, Callable[[Path], UserModel]] = {".onnx": OnnxModel, ".tflite": TfliteModel}


def open_model(path: Path) -> UserModel:
    """Open a model file by its suffix. Raises `InputFileError` with one line about what is wrong."""
    open_file = _FORMATS.get(path.suffix)
    if open_file is not None:
        return open_file(path)
    if path.suffix == ".py":
        raise InputFileError(path, f"is a module of Python; name its function, like {path.stem}:function")
    if not path.exists():
        address = re.match(r"[a-z]+:/", str(path))
        what = "is an address; download the file" if address else "there is no such file"
        raise InputFileError(path, f"{what}; give FILE.onnx, FILE.tflite or package.module:function")
    raise InputFileError(path, f"{path.suffix or 'a file without suffix'} is not supported; give .onnx or .tflite")
