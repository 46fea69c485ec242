"""The registry of runtimes. A runtime is a library that runs models of one file format."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import device_agents
from ofa_profiler.base.registry import Registry
from ofa_profiler.base.releases import release_of

_WORKERS = Path(device_agents.__path__[0]) / "ofa_agent" / "runtimes"


@dataclass(frozen=True)
class Runtime:
    """A runtime. `name` is the value of `--runtime`.

    `suffix`: of its model files, like `.onnx`. `exporter`: the class that writes them, as `MODULE:CLASS`; it is
    imported on first use, because its libraries can be slow to import. `packages`: the pip packages that a device
    without the runtime needs, as alternatives in the order of preference. `default_provider`: the provider without
    `--provider`. `worker`: the file that is sent to the device with the agent and runs models there
    (device_agents/README.md describes it). `numpy_2_since`: the first release that works with numpy 2, if some do not.
    """

    name: str
    suffix: str
    exporter: str
    packages: tuple[tuple[str, ...], ...]
    default_provider: str
    worker: Path
    numpy_2_since: str | None = None

    @property
    def installed_release(self) -> str | None:
        """The release that is installed on this machine; None without one, or for one of nobody's (`1.2.dev3`)."""
        from importlib.metadata import PackageNotFoundError, version

        for package, *_ in self.packages:
            with contextlib.suppress(PackageNotFoundError):
                return release_of(version(package))
        return None


_RUNTIMES: Registry[Runtime] = Registry("runtime")


def register_runtime(runtime: Runtime) -> None:
    """Register a runtime for commands and kits. Raises `UsageError` if its name is taken."""
    _RUNTIMES.add(runtime.name, runtime)


def runtimes() -> Mapping[str, Runtime]:
    """Name -> runtime, for all runtimes."""
    return {name: _RUNTIMES.get(name) for name in _RUNTIMES.names()}


def get_runtime(name: str) -> Runtime:
    """The runtime of this name. Raises `UsageError` for an unknown name."""
    return _RUNTIMES.get(name)


register_runtime(
    Runtime(
        name="onnxruntime",
        suffix=".onnx",
        exporter="ofa_profiler.export.onnx:OnnxExporter",
        packages=(("onnxruntime", "numpy"),),
        default_provider="CPUExecutionProvider",
        worker=_WORKERS / "onnxruntime.py",
        numpy_2_since="1.19",
    )
)
register_runtime(
    Runtime(
        name="litert",
        suffix=".tflite",
        exporter="ofa_profiler.export.tflite:TfliteExporter",
        # tflite-runtime, the predecessor of LiteRT, supports old Pythons and 32-bit boards. It needs numpy 1.
        packages=(("ai-edge-litert", "numpy"), ("tflite-runtime", "numpy<2")),
        default_provider="XNNPACK",
        worker=_WORKERS / "litert.py",
    )
)
