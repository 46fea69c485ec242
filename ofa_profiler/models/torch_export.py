"""A torch module as an ONNX file: `package.module:function` names a function that returns the module."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_profiler.base.extras import need
from ofa_profiler.base.files import write_bytes
from ofa_profiler.base.user_code import import_named, one_line, users_code
from ofa_profiler.base.user_code import is_module_name as is_module_name
from ofa_profiler.errors import UsageError
from ofa_profiler.models.base import Array, ModelInput
from ofa_profiler.models.inputs import feeds_for, parse_shapes

if TYPE_CHECKING:
    import torch


def load_module(name: str) -> torch.nn.Module:
    """The module that the function `package.module:function` returns, in eval mode. Raises `UsageError`."""
    return load_network(name)[0]


def load_network(name: str) -> tuple[torch.nn.Module, object]:
    """The module that the function `package.module:function` returns, in eval mode, and what it returns beside it.

    That is how an image becomes the input (`image_input.py`), or None. The current folder is searched first. Random
    weights are the same every time. Raises `UsageError`.
    """
    need("torch", extra="train", purpose="a torch module")
    import torch

    with users_code(f"--model {name}"):
        torch.manual_seed(0)
        found = import_named(name)
        returned = found() if not isinstance(found, torch.nn.Module) else found
    module, *others = returned if isinstance(returned, tuple) and returned else (returned,)
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"--model {name} returns {type(module).__name__}, not a torch module")
    return _unwrapped(module).eval(), others[0] if others else None


def _unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The module inside those that compile it or spread it over devices, which give its weights other names."""
    import torch

    while True:
        inner = module._modules.get("_orig_mod")  # of torch.compile
        if isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
            inner = module.module
        if inner is None:
            return module
        module = inner


def export_module(
    module: torch.nn.Module, path: Path, shapes: Sequence[str], arrays: Mapping[str, Array] | None = None
) -> Path:
    """Write the module as an ONNX file with fixed shapes to `path`, completely or not at all.

    `shapes` are values of `--shape`, `arrays` real inputs; the names are those of the arguments of `forward`. Raises
    `UsageError` with torch's reason if it cannot be exported.
    """
    names = _argument_names(module, arrays or {}, shapes)
    dtype = _float_type(module)
    inputs = [_declared(name, shapes, (arrays or {}).get(name), len(names), dtype) for name in names]
    feeds = feeds_for(inputs, parse_shapes(shapes, inputs), arrays)
    with evaluated(module):
        data = _export(module, feeds, {name for name in names if name not in (arrays or {})})
    write_bytes(path, data)
    return path


def _float_type(module: torch.nn.Module) -> str:
    """The name of the type of the module's weights in numpy, which made-up floats get. Raises `UsageError`."""
    found = next((weights.dtype for weights in module.parameters() if weights.is_floating_point()), None)
    name = "float32" if found is None else str(found).removeprefix("torch.")
    if name not in ("float16", "float32", "float64"):
        raise UsageError(
            f"{type(module).__name__} has weights of {name}, which is not supported; return module.float()"
        )
    return name


@contextlib.contextmanager
def evaluated(module: torch.nn.Module) -> Iterator[None]:
    """The module in eval mode, and afterwards as it was."""
    before = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, training in before:
            each.training = training


def _argument_names(module: torch.nn.Module, arrays: Mapping[str, Array], shapes: Sequence[str]) -> list[str]:
    """The arguments of `forward` that get a value: those without a default, and those that are given."""
    given = {*arrays, *(text.rpartition("=")[0] for text in shapes)}
    parameters = inspect.signature(module.forward).parameters.values()
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = [p.name for p in plain if p.default is p.empty or p.name in given]
    if not names:
        raise UsageError(f"the forward of {type(module).__name__} names no arguments: it cannot be exported")
    return names


def _declared(name: str, shapes: Sequence[str], array: Array | None, count: int, dtype: str) -> ModelInput:
    """An input with as many open dimensions as are given."""
    if array is not None:
        return ModelInput(name, array.dtype.name, tuple(array.shape))
    for text in shapes:
        named, _, sizes = text.rpartition("=")
        if named == name or (not named and count == 1):
            return ModelInput(name, dtype, ("?",) * len(sizes.split("x")) if sizes else ())
    raise UsageError(f"a torch module does not tell its shapes: give --shape {name}=1x3x224x224, or --inputs FILE.npz")


def _export(module: torch.nn.Module, feeds: Mapping[str, Array], made_up: Collection[str]) -> bytes:
    """The bytes of the ONNX file, by torch's exporter of today, or its older one where that fails.

    `made_up` are the inputs that are floats because nothing else is known.
    """
    import torch

    arguments = tuple(torch.from_numpy(array) for array in feeds.values())
    reasons = []
    for dynamo in (True, False):
        buffer: Any = io.BytesIO()  # torch's annotation lacks files
        options: dict[str, Any] = {"dynamo": True, "verbose": False} if dynamo else {"dynamo": False}
        try:
            with _quiet(), torch.no_grad():
                torch.onnx.export(module, arguments, buffer, input_names=list(feeds), **options)
        except Exception as error:
            reasons.append(one_line(error))
        else:
            return bytes(buffer.getvalue())
    hint = f"; {min(made_up)!r:.60} got made-up floats: give integers by --inputs FILE.npz" if made_up else ""
    raise UsageError(f"torch cannot export {type(module).__name__} as ONNX: {reasons[-1]}{hint}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters print, warn and log about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
