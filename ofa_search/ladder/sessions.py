"""Models that are loaded once and stay loaded."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import InputFileError, UsageError

Array = NDArray[np.float32]
#: The runtime without another choice.
DEFAULT_RUNTIME = "onnxruntime"


class Session(ABC):
    """A loaded network. `shape` is that of its input: (batch, channels, height, width)."""

    shape: tuple[int, ...]

    @abstractmethod
    def run(self, image: Array) -> Array:
        """The outputs for an input of this shape: (batch, classes)."""


class OnnxSession(Session):
    """A model in onnxruntime, with the settings of the latency table."""

    def __init__(self, path: Path, threads: int, provider: str | None) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import
        onnxruntime = _imported("onnxruntime", "onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        providers = [provider or "CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        (given,) = self._session.get_inputs()
        self._name, self.shape = given.name, tuple(given.shape)

    def run(self, image: Array) -> Array:
        outputs: Array = self._session.run(None, {self._name: image})[0]
        return outputs


class LitertSession(Session):
    """A model in LiteRT, with the settings of the latency table."""

    def __init__(self, path: Path, threads: int, provider: str | None) -> None:
        litert = _imported("ai_edge_litert.interpreter", "ai-edge-litert")
        resolver = litert.OpResolverType
        kind = resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES if provider == "CPU" else resolver.AUTO
        self._interpreter = litert.Interpreter(str(path), num_threads=threads, experimental_op_resolver_type=kind)
        self._interpreter.allocate_tensors()
        (given,), (result,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._input, self._output = given["index"], result["index"]
        batch, height, width, channels = map(int, given["shape"])
        self.shape = (batch, channels, height, width)

    def run(self, image: Array) -> Array:
        self._interpreter.set_tensor(self._input, image.transpose(0, 2, 3, 1))
        self._interpreter.invoke()
        outputs: Array = self._interpreter.get_tensor(self._output)
        return outputs


#: Runtime -> the kind of its model files, and what loads one with (path, threads, provider).
_OPENERS: dict[str, tuple[str, Callable[[Path, int, str | None], Session]]] = {
    DEFAULT_RUNTIME: ("onnx", OnnxSession),
    "litert": ("tflite", LitertSession),
}


def kind_of(runtime: str) -> str:
    """The kind of model file of a runtime. Raises `UsageError` for an unknown one."""
    if runtime not in _OPENERS:
        raise UsageError(f"a ladder cannot run models in {runtime}; choose from {', '.join(_OPENERS)}")
    return _OPENERS[runtime][0]


def open_session(runtime: str, path: Path, threads: int, provider: str | None) -> Session:
    """Load a model. Raises `InputFileError`, and `UsageError` without the runtime."""
    try:
        return _OPENERS[runtime][1](path, threads, provider)
    except UsageError:
        raise
    except Exception as error:  # the runtimes have errors of many kinds
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputFileError(path, f"{runtime} cannot load it: {first[:300]}") from error


def _imported(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"these models need {package} ({error}): pip install {package}") from error
