"""Model files of one network before and after, measured in turns on a device."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ofa_profiler.base.progress import Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import DeviceError
from ofa_profiler.measuring.model import settings_for
from ofa_profiler.measuring.session import measure
from ofa_profiler.models.base import UserModel
from ofa_profiler.models.formats import open_model
from ofa_profiler.models.timed import timed_model
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.steady import steady_times
from ofa_profiler.runtimes import get_runtime
from ofa_profiler.verification.conditions import network_settings

#: Measurements of a network that is over its budget, until one is not.
_MOST_MEASUREMENTS = 3


def measure_for_budget(
    device: Device,
    files: Mapping[str, Path],
    shape: Sequence[int],
    settings: Settings,
    name: str,
    budget_ms: float,
    *,
    progress: Reporter | None = None,
) -> dict[str, float]:
    """`measure_files`; again if the network `name` is over its budget.

    The network was chosen because it kept the budget. If it does not any more, another program may disturb this
    session. That only makes networks slower, so the session in which it was fastest counts, with all its times.
    """
    sessions: list[dict[str, float]] = []
    while len(sessions) < _MOST_MEASUREMENTS and all(times[name] > budget_ms for times in sessions):
        sessions.append(measure_files(device, files, shape, settings, progress=progress))
    return min(sessions, key=lambda times: times[name])


def measure_files(
    device: Device,
    files: Mapping[str, Path],
    shape: Sequence[int],
    settings: Settings,
    *,
    progress: Reporter | None = None,
) -> dict[str, float]:
    """Milliseconds of each model file by its name here. The device must be open.

    `shape` is that of the input, (N, C, H, W). Raises `DeviceError` if the device or a network fails.
    """
    opened = {name: open_model(path) for name, path in files.items()}
    settings = replace(settings_for(next(iter(opened.values())), network_settings(settings)), time_limit_s=None)
    device.prepare_runtime(settings.target.runtime)
    suffix = get_runtime(settings.target.runtime).suffix
    with tempfile.TemporaryDirectory(prefix="ofa-prune-") as folder:
        models = [
            timed_model(name, model.whole(_feeds(model, shape)), suffix, Path(folder)) for name, model in opened.items()
        ]
        measured = measure(device, models, settings, progress=progress)
    for name in opened:
        if not measured[name].ok:
            raise DeviceError(f"the network {name} failed on the device: {measured[name].error}")
    return {name: time.ms for name, time in steady_times(measured.values()).items()}


def _feeds(model: UserModel, shape: Sequence[int]) -> dict[str, np.ndarray]:
    """Random values for the input, whose axes can be in another order in the file."""
    (declared,) = model.inputs
    sizes = shape if tuple(declared.shape) == tuple(shape) else (shape[0], *shape[2:], shape[1])
    return {declared.name: np.random.default_rng(0).uniform(-1, 1, sizes).astype(declared.dtype)}
