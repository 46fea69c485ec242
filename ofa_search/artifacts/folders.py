"""Refuses a folder where a file of weights is needed, and names the files in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ofa_profiler.errors import InputFileError

#: `.tar` as in `model_best.pth.tar`, the name that the OFA authors' code and many others use.
_SUFFIXES = (".safetensors", ".pth", ".pt", ".tar", ".ckpt", ".bin")
_BEST = "model_best.pth.tar"
_MOST_FOLDERS, _SHOWN = 200, 3


def refuse_folder(path: Path) -> None:
    """Raise `InputFileError` if `path` is a folder. The message names up to three files of weights in it."""
    if not path.is_dir():
        return
    found = sorted(_weight_files(path), key=lambda file: (file.name != _BEST, len(file.parts), file.parts))
    if not found:
        raise InputFileError(path, f"a folder, without a file of weights in it ({', '.join(_SUFFIXES)})")
    names = [str(file.relative_to(path)) for file in found[:_SHOWN]]
    more = f", or one of {len(found) - _SHOWN} others" if len(found) > _SHOWN else ""
    raise InputFileError(path, f"a folder; give {' or '.join(names)} in it{more}")


def _weight_files(folder: Path) -> Iterator[Path]:
    for count, (parent, _, files) in enumerate(os.walk(folder)):
        if count == _MOST_FOLDERS:
            return
        yield from (Path(parent, name) for name in files if name.endswith(_SUFFIXES) and not name.startswith("."))
