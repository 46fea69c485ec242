"""The forms in which users give a model: a file, the bytes of one, a torch module, or the name of a function."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Union

from ofa_profiler.base.files import write_bytes
from ofa_profiler.base.user_code import is_module_name
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.models.base import Array, UserModel
from ofa_profiler.models.formats import open_model
from ofa_profiler.models.inputs import feeds_for, parse_shapes
from ofa_profiler.models.torch_export import export_module, load_module

if TYPE_CHECKING:
    import torch

#: What `profile(model=…)` takes.
ModelSource = Union[str, "os.PathLike[str]", bytes, "torch.nn.Module"]


def shape_texts(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """Shapes by the names of inputs as values of `--shape`. Raises `UsageError`."""
    if not isinstance(shapes, Mapping) or any(
        isinstance(sizes, str) or not isinstance(sizes, Sequence) for sizes in shapes.values()
    ):
        raise UsageError('shapes are sizes by the names of the inputs, like {"image": (1, 3, 224, 224)}')
    return [f"{name}={'x'.join(map(str, sizes))}" for name, sizes in shapes.items()]


def open_source(
    source: ModelSource, folder: Path, shapes: Sequence[str] = (), arrays: Mapping[str, Array] | None = None
) -> tuple[UserModel, dict[str, Array]]:
    """The opened model, and what its inputs get. `shapes` are values of `--shape`, `arrays` real inputs.

    Bytes are those of an ONNX or TFLite file. They, and torch modules as ONNX, are written into `folder`; what is no
    model does not stay there. Raises `UsageError`.
    """
    path, is_torch = _as_file(source, folder, shapes, arrays)
    try:
        model = open_model(path)
    except InputFileError:
        if isinstance(source, bytes):
            path.unlink(missing_ok=True)
        raise
    # The shapes in a file that torch wrote are those given.
    parsed = {} if is_torch else parse_shapes(shapes, model.inputs)
    return model, feeds_for(model.inputs, parsed, arrays)


def open_sources(
    sources: Sequence[ModelSource], folder: Path, shapes: Sequence[str] = (), arrays: Mapping[str, Array] | None = None
) -> list[tuple[UserModel, dict[str, Array]]]:
    """`open_source` for several files of one network, whose inputs may have different names.

    Each file gets the shapes and arrays that name one of its inputs. Raises `UsageError`, also for a name that none of
    them has.
    """
    if len(sources) == 1:
        return [open_source(sources[0], folder, shapes, arrays)]
    arrays, opened, used = arrays or {}, [], set()
    for source in sources:
        path, _ = _as_file(source, folder, shapes, arrays)
        model = open_model(path)
        names = {each.name for each in model.inputs}
        own = [text for text in shapes if "=" not in text or text.rpartition("=")[0] in names]
        given = {name: array for name, array in arrays.items() if name in names}
        used |= {*own, *given}
        opened.append((model, feeds_for(model.inputs, parse_shapes(own, model.inputs), given)))
    if unused := [name for name in (*shapes, *arrays) if name not in used]:
        raise UsageError(f"{unused[0]!r:.80}: no --model has this input")
    return opened


def _as_file(
    source: ModelSource, folder: Path, shapes: Sequence[str], arrays: Mapping[str, Array] | None
) -> tuple[Path, bool]:
    """The file of the model, and whether torch wrote it now."""
    if isinstance(source, bytes):
        path = folder / ("model.tflite" if source[4:8] == b"TFL3" else "model.onnx")
        write_bytes(path, source)
        return path, False
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        if not is_module_name(text) or Path(text).exists():
            return Path(text), False
        return export_module(load_module(text), folder / f"{text.rpartition(':')[2]}.onnx", shapes, arrays), True
    torch = sys.modules.get("torch")  # who has a module has imported it
    if torch is None or not isinstance(source, torch.nn.Module):
        kind = source.__name__ if isinstance(source, type) else type(source).__name__
        raise UsageError(
            f"model is of the type {kind}: give a file, the bytes of one, or a torch module (not its class)"
        )
    return export_module(source, folder / f"{type(source).__name__}.onnx", shapes, arrays), True
