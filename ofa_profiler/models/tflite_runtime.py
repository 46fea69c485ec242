"""LiteRT on this machine: runs a network, and notes what every tensor is in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.models.base import Array
from ofa_profiler.models.names import unique

#: A damaged file can end the process that loads it, so another one loads it first.
_LOAD = """
import sys
from ai_edge_litert.interpreter import Interpreter
Interpreter(model_content=open(sys.argv[1], "rb").read(), num_threads=1)
"""
_LOAD_S = 120.0


def check_loads(path: Path) -> None:
    """Load a file in a process of its own. Raises `InputFileError`."""
    command = [sys.executable, "-c", _LOAD, str(path)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_LOAD_S, check=False)
    except subprocess.TimeoutExpired:
        raise InputFileError(path, f"LiteRT does not load it within {_LOAD_S:.0f} s; is it damaged?") from None
    if ended.returncode:
        reason = one_line(ended.stderr) if ended.returncode > 0 else "it ends the process; is the file damaged?"
        raise InputFileError(path, f"LiteRT does not load it: {reason}")


def one_line(text: str) -> str:
    """The last line of what the runtime says, which has the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "without a reason")[:300]


@contextmanager
def reasons(what: str) -> Iterator[None]:
    """Turns what the runtime raises into a `UsageError`."""
    try:
        yield
    except (ValueError, RuntimeError, TypeError, MemoryError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"LiteRT does not run {what}: {text[:400]}") from None


@contextmanager
def _silenced() -> Iterator[None]:
    """Hides what native code prints: XNNPACK tells every user that it has been created. Errors are exceptions."""
    try:
        kept = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 2)
        os.close(nothing)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def prepared(data: bytes, feeds: Mapping[str, Array], **options: Any) -> Any:
    """An interpreter with one thread whose inputs have these values. Raises what the runtime raises."""
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped] # an extra

    with _silenced():
        interpreter = Interpreter(model_content=data, num_threads=1, **options)
        inputs = interpreter.get_input_details()
        for details in inputs:
            if tuple(details["shape"]) != feeds[details["name"]].shape:
                interpreter.resize_tensor_input(details["index"], feeds[details["name"]].shape)
        interpreter.allocate_tensors()
    for details in inputs:
        interpreter.set_tensor(details["index"], np.require(feeds[details["name"]], requirements="C"))
    return interpreter


def outputs_of(interpreter: Any) -> dict[str, Array]:
    """The outputs after a run, by name. Equal names get `#2` and so on."""
    found: dict[str, Array] = {}
    for details in interpreter.get_output_details():
        found[unique(details["name"], found)] = interpreter.get_tensor(details["index"])
    return found


def is_delegated(interpreter: Any) -> bool:
    """Whether XNNPACK runs a part of it."""
    return any(node["op_name"] == "DELEGATE" for node in interpreter._get_ops_details())


def captured(data: bytes, feeds: Mapping[str, Array]) -> Any:
    """An interpreter after a run that keeps the values of all tensors. The plain kernels run it, without XNNPACK."""
    from ai_edge_litert.interpreter import OpResolverType  # an extra

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = prepared(data, feeds, experimental_op_resolver_type=plain, experimental_preserve_all_tensors=True)
    interpreter.invoke()
    return interpreter
