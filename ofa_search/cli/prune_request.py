"""The request to `ofa-prune`: its arguments, checked before anything is loaded."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_profiler.base.files import keep_old, write_text
from ofa_profiler.base.units import format_duration_ms, parse_duration_ms
from ofa_profiler.base.user_code import is_module_name
from ofa_profiler.cli.options import device_options
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.measuring.naming import check_name
from ofa_profiler.models.image_input import image_shape
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import DEFAULT_TARGET, Target
from ofa_profiler.tables.table import LatencyTable
from ofa_search.pruning.latency.table import runtime_of

if TYPE_CHECKING:
    from ofa_profiler.devices import Device

#: What a folder was made for. A run with another request does not resume there.
REQUEST = "request.json"
_TRAINING = ("training.safetensors", "training.csv", "choices.json")
#: What a grid does not depend on. Whoever was told what can be reached asks for another budget.
_AFTER_GRID = ("budget", "method")


@dataclass(frozen=True)
class Request:
    """The arguments of `ofa-prune` that are about the network, the device and the files."""

    model: str
    name: str
    shape: tuple[int, int, int, int]
    budget_ms: float
    method: str
    #: What is measured, or the grid that was measured before: one of them.
    device: str | None
    lut: Path | None
    settings: Settings
    out: Path
    fresh: bool

    @property
    def resolution(self) -> int:
        """Height and width of the input."""
        return self.shape[-1]

    def path(self, suffix: str) -> Path:
        """A file of the result, like NAME.onnx for `.onnx`."""
        return self.out / f"{self.name}{suffix}"

    def to_json(self) -> dict[str, Any]:
        """What a run must have in common with the one that it resumes."""
        target = self.settings.target
        return {
            "model": self.model,
            "input": "x".join(map(str, self.shape)),
            "budget": format_duration_ms(self.budget_ms),
            "method": self.method,
            "device": self.device,
            "lut": None if self.lut is None else str(self.lut),
            "runtime": target.runtime,
            "provider": self.settings.provider,
            "threads": self.settings.threads,
            "name": self.name,
        }


def read_request(arguments: argparse.Namespace) -> Request:
    """Raises `UsageError` and `InputFileError`."""
    if not is_module_name(arguments.model):
        raise UsageError(
            f"--model {arguments.model!r:.80} is not package.module:function, a function that returns a torch module"
        )
    if (arguments.device is None) == (arguments.lut is None):
        raise UsageError(
            "give --device DEVICE to measure, or --lut TABLE.csv, a grid that ofa-prune --device wrote; one of them"
        )
    runtime = arguments.runtime if arguments.lut is None else _check_lut(arguments)
    return Request(
        model=arguments.model,
        name=check_name(arguments.name or arguments.model.rpartition(":")[2]),
        shape=image_shape(arguments.input),
        budget_ms=parse_duration_ms(arguments.budget, "--budget"),
        method=arguments.method,
        device=arguments.device,
        lut=arguments.lut,
        settings=_settings(arguments, runtime),
        out=arguments.out,
        fresh=arguments.fresh,
    )


def _settings(arguments: argparse.Namespace, runtime: str | None) -> Settings:
    return Settings(
        DEFAULT_TARGET if runtime is None else Target(runtime),
        provider=arguments.provider,
        threads=arguments.threads or 1,
        time_limit_s=parse_duration_ms(arguments.time_limit, "--time-limit") / 1e3,
    )


def _check_lut(arguments: argparse.Namespace) -> str:
    """The runtime of the table. Raises `UsageError` for options of a device, and for another runtime."""
    if not arguments.lut.is_file():
        raise InputFileError(arguments.lut, "no such file; it is a NAME-grid.csv of ofa-prune --device")
    of_devices = ("provider", "threads", "cores", "benchmark_model")
    given = [option for option in of_devices if getattr(arguments, option) is not None]
    if given:
        option = given[0].replace("_", "-")
        raise UsageError(f"--{option} is for a device that is measured: omit it with --lut")
    return runtime_of(LatencyTable.load(arguments.lut), arguments.runtime)


def open_requested(request: Request, arguments: argparse.Namespace) -> Device | None:
    """The device that is measured, not yet reached; None for a table. Raises `UsageError`."""
    if request.device is None:
        return None
    from ofa_profiler.devices import open_device

    return open_device(request.device, device_options(arguments, request.settings))


def claim_folder(request: Request) -> None:
    """Make `--out` the folder of this request, or find that it is.

    Raises `UsageError` if it cannot be written, `InputFileError` if it has results of another request and `--fresh`
    was not given.
    """
    path = request.out / REQUEST
    mine = request.to_json()
    if request.fresh:
        journals = [path.name for path in request.out.glob("*-grid*.jsonl") if path.name.startswith(request.name)]
        for name in (REQUEST, *_TRAINING, *journals):
            keep_old(request.out / name)
    elif path.exists():
        free = () if _results(request) else _AFTER_GRID
        _check_same(path, {name: value for name, value in mine.items() if name not in free})
    elif found := _results(request):
        raise UsageError(
            f"{request.out} has results of another command ({found[0]}): choose another --out, or replace them with "
            "--fresh"
        )
    write_text(path, json.dumps({"tool": "ofa-prune", "request": mine}, indent=2) + "\n")


def _check_same(path: Path, mine: Mapping[str, Any]) -> None:
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))["request"]
        differing = [name for name in mine if theirs.get(name) != mine[name]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputFileError(path, "damaged: choose another --out, or start over with --fresh") from None
    if differing:
        name = differing[0]
        raise InputFileError(
            path,
            f"belongs to a run with another {name} ({_short(theirs.get(name))}, now {_short(mine[name])}): choose "
            "another --out, or start over with --fresh",
        )


def _results(request: Request) -> list[str]:
    """The files in its folder that are more than a grid."""
    names = (*_TRAINING, *(f"{request.name}{suffix}" for suffix in (".json", ".safetensors", ".onnx", ".tflite")))
    return [name for name in names if (request.out / name).exists()]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"...{text[-57:]}"
