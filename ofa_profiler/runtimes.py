"""The runtimes: what runs a model, which file format it reads, and what a device needs for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import device_agents
from ofa_profiler.base.registry import Registry

_WORKERS = Path(device_agents.__path__[0]) / "ofa_agent" / "runtimes"


@dataclass(frozen=True)
class Runtime:
    """A runtime by the name that `--runtime` takes.

    `suffix` is that of its model files. `exporter` names the class that writes them, as `MODULE:CLASS`: it is
    imported on first use, since it may need libraries that take long to import. `packages` are alternatives, the
    first one first: what pip has to bring to a device that lacks the runtime. `worker` is the file that travels with
    the agent and runs models there (device_agents/README.md says what is in it).
    """

    name: str
    suffix: str
    exporter: str
    packages: tuple[tuple[str, ...], ...]
    default_provider: str
    worker: Path


_RUNTIMES: Registry[Runtime] = Registry("runtime")


def register_runtime(runtime: Runtime) -> None:
    """Make a runtime known to the commands and to kits. Raises `UsageError` for a name that is taken."""
    _RUNTIMES.add(runtime.name, runtime)


def runtimes() -> Mapping[str, Runtime]:
    """Every runtime by its name."""
    return {name: _RUNTIMES.get(name) for name in _RUNTIMES.names()}


def get_runtime(name: str) -> Runtime:
    """The runtime of that name. Raises `UsageError` with the known names."""
    return _RUNTIMES.get(name)


register_runtime(
    Runtime(
        name="onnxruntime",
        suffix=".onnx",
        exporter="ofa_profiler.export.onnx:OnnxExporter",
        packages=(("onnxruntime", "numpy"),),
        default_provider="CPUExecutionProvider",
        worker=_WORKERS / "onnxruntime.py",
    )
)
register_runtime(
    Runtime(
        name="litert",
        suffix=".tflite",
        exporter="ofa_profiler.export.tflite:TfliteExporter",
        # LiteRT's predecessor serves old Pythons and 32-bit boards, and was built for numpy 1.
        packages=(("ai-edge-litert", "numpy"), ("tflite-runtime", "numpy<2")),
        default_provider="XNNPACK",
        worker=_WORKERS / "litert.py",
    )
)
