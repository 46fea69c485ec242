"""The formats of model files."""

from __future__ import annotations

from pathlib import Path

from ofa_profiler.errors import InputFileError
from ofa_profiler.models.base import UserModel


def open_model(path: Path) -> UserModel:
    """Open a model file by its suffix. Raises `InputFileError` with one line about what is wrong."""
    if path.suffix == ".onnx":
        from ofa_profiler.models.onnx_model import OnnxModel

        return OnnxModel(path)
    if path.suffix == ".tflite":
        from ofa_profiler.models.tflite_model import TfliteModel

        return TfliteModel(path)
    if not path.exists():
        raise InputFileError(path, "there is no such file; give FILE.onnx, FILE.tflite or package.module:function")
    raise InputFileError(path, f"{path.suffix or 'a file without suffix'} is not supported; give .onnx or .tflite")
