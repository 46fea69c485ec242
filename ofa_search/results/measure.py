"""The networks of a search, measured as the ops of their table were."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ofa_profiler.devices.base import Device
from ofa_profiler.errors import DeviceError
from ofa_profiler.export import Model, get_exporter
from ofa_profiler.measuring.session import Progress, measure
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.verify import settings_of
from ofa_search.results.files import export, file_stems
from ofa_search.results.found import Found


def measure_networks(
    found: Sequence[Found],
    table: LatencyTable,
    device: Device,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> list[Found]:
    """`found` with the measured latency of each network under the table's name.

    They run with the table's runtime, provider, precision, threads and batch. Raises `DeviceError` when
    the device or one of the networks fails, `UsageError` for a table without the settings of its measurement.
    """
    settings = settings_of(table)
    exporter = get_exporter(settings.runtime, settings.precision)
    how = {"batch": settings.batch, "precision": settings.precision, "runtime": settings.runtime}
    models = []
    with tempfile.TemporaryDirectory(prefix="ofa-search-") as folder:
        for network, stem in zip(found, file_stems(found), strict=True):
            architecture = network.result.architecture
            path = export(network, Path(folder) / f"{stem}{exporter.suffix}", **how)
            layout = network.source.space.layout(architecture)
            models.append(Model.from_file(stem, path, exporter.input_shape(layout, settings.batch)))
        measured = measure(device, models, settings, progress=progress)
    for model in models:
        if not measured[model.key].ok:
            raise DeviceError(f"network {model.key} failed on the device: {measured[model.key].error}")
    return [
        replace(network, measured_latency_ms={table.name: measured[model.key].median_ms})
        for network, model in zip(found, models, strict=True)
    ]
