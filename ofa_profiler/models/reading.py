"""Reads a model file, or says in one line why that is impossible."""

from __future__ import annotations

from pathlib import Path

from ofa_profiler.errors import InputFileError

#: Neither protocol buffers (ONNX) nor flatbuffers (TFLite) are larger.
LARGEST_BYTES = 2**31 - 1


def read_model(path: Path) -> bytes:
    """The bytes of a file. Raises `InputFileError` if it is missing, unreadable, empty or larger than 2 GB."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputFileError(path, "is larger than 2 GB, which is not supported")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputFileError(path, "there is no such file") from None
    except OSError as error:
        raise InputFileError(path, f"cannot be read: {error.strerror or error}") from error
    if not data:
        raise InputFileError(path, "is empty")
    return data
