"""The networks of a search, measured as the ops of their table were."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ofa_profiler.base.progress import Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import DeviceError
from ofa_profiler.export import network_model
from ofa_profiler.measuring.session import measure
from ofa_profiler.protocol.steady import noise_of, steady_times
from ofa_profiler.runtimes import get_runtime
from ofa_profiler.tables.mixed import AnyTable
from ofa_profiler.verification.conditions import settings_of
from ofa_search.results.files import export, file_stems
from ofa_search.results.found import Found


def measure_networks(
    found: Sequence[Found],
    table: AnyTable,
    device: Device,
    *,
    progress: Reporter | None = None,
) -> list[Found]:
    """`found` with the measured latency of each network under the table's name.

    They run with the table's runtime, provider, precision, threads and batch. Raises `DeviceError` when
    the device or one of the networks fails, `UsageError` for a table without the settings of its measurement.
    """
    settings = settings_of(table)
    suffix = get_runtime(settings.target.runtime).suffix
    release = device.prepare_runtime(settings.target.runtime)
    models = []
    with tempfile.TemporaryDirectory(prefix="ofa-search-") as folder:
        for network, stem in zip(found, file_stems(found), strict=True):
            architecture = network.result.architecture
            path = export(network, Path(folder) / f"{stem}{suffix}", settings.target, release)
            models.append(network_model(network.source.space, architecture, stem, path, settings.target))
        measured = measure(device, models, settings, progress=progress)
    for model in models:
        if not measured[model.key].ok:
            raise DeviceError(f"network {model.key} failed on the device: {measured[model.key].error}")
    times = steady_times(measured.values())
    noise = noise_of(times.values())
    noise = 0.0 if math.isnan(noise) else noise  # a single round
    return [
        replace(network, measured_latency_ms={table.name: times[model.key].ms}, noise=noise)
        for network, model in zip(found, models, strict=True)
    ]
