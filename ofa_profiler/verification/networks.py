"""Whole networks: exported, measured with the settings of a table, and put together with their predictions."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ofa_profiler.base.progress import Reporter, report
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import InputFileError
from ofa_profiler.export import Model, export_network, network_model
from ofa_profiler.measuring.expectation import expected_ms as expected_op_ms
from ofa_profiler.measuring.session import measure_into
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.made_up_weights import repeating_weights
from ofa_profiler.protocol.forms import AnyForms
from ofa_profiler.protocol.identity import request_difference
from ofa_profiler.protocol.journal import Journal, read_journal
from ofa_profiler.protocol.kit import run_record
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.records import Run
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.steady import SteadyTime, steady_times
from ofa_profiler.protocol.target import Target
from ofa_profiler.runtimes import get_runtime
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.tables.corrections.intervals import DEFAULT_LEVEL
from ofa_profiler.tables.mixed import AnyTable
from ofa_profiler.verification.checks import CHECKS, Checks, export_checks
from ofa_profiler.verification.result import Subnet


def network_name(architecture: Architecture) -> str:
    """The name of a network in journals, in the JSON of tables and of its file: equal for equal architectures."""
    text = json.dumps(architecture.to_json(), sort_keys=True)
    return f"{architecture.space.replace(':', '.')}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def export_networks(
    space: SearchSpace,
    architectures: Sequence[Architecture],
    folder: Path,
    target: Target,
    forms: AnyForms,
    progress: Reporter | None,
    release: str | None = None,
    *,
    packed: bool = True,
) -> list[Model]:
    """A model per network in `folder`, for a release of the runtime; compressed, if `packed`.

    Equal architectures give equal models, so a journal can be continued.
    """
    suffix = get_runtime(target.runtime).suffix
    models = []
    for architecture in architectures:
        key = network_name(architecture)
        path = export_network(
            space,
            architecture,
            repeating_weights(space.layout(architecture)),
            folder / f"{key}{suffix}",
            target,
            metadata={
                "space": space.name,
                "architecture": json.dumps(architecture.to_json(), sort_keys=True),
                "weights": "untrained",
                "forms": json.dumps(forms.to_json()),
            },
            forms=forms,
            release=release,
        )
        model = network_model(space, architecture, key, path, target)
        models.append(model.packed() if packed else model)
        report(progress, "export", len(models), len(architectures))
    return models


def measure_networks(
    table: AnyTable,
    device: Device,
    space: SearchSpace,
    architectures: Sequence[Architecture],
    settings: Settings,
    *,
    checks: Checks | None = None,
    about: Mapping[str, Any] | None = None,
    journal: Path | None = None,
    replaces: Callable[[Run], bool] = lambda _: False,
    keep_models: Path | None = None,
    progress: Reporter | None = None,
) -> tuple[tuple[Subnet, ...], Replay]:
    """Measure networks of `space` in the forms of `table` -> the networks with their predictions, and the journal.

    The ops of `checks` are measured too. `about` is kept in the first line of the file `journal`. An interrupted
    measurement in that file is resumed. If `replaces(request)`, the file is replaced instead once the new one is
    complete.
    """
    predicted = table.predict_ms(architectures)
    with ExitStack() as stack:
        folder = keep_models or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ofa-networks-")))
        release = device.prepare_runtime(settings.target.runtime)
        models = export_networks(
            space,
            architectures,
            folder,
            settings.target,
            table.forms,
            progress,
            release,
            packed=keep_models is None,
        )
        origin: dict[str, Any] = {"spaces": [space.name], "resolutions": list(space.resolutions), **(about or {})}
        expected_ms = {model.key: float(ms) for model, ms in zip(models, predicted, strict=True)}
        all_models = models
        if checks is not None and checks.all:
            origin[CHECKS] = checks.to_json()
            ops = stack.enter_context(tempfile.TemporaryDirectory(prefix="ofa-checks-"))
            all_models = [
                *models,
                *export_checks(checks, Path(ops), settings.target, table.forms.at(settings.target.precision), release),
            ]
            expected_ms |= expected_op_ms(checks.all, settings)
        run = run_record(all_models, settings, origin)
        opened = stack.enter_context(Journal(journal, run, fresh=replaces(run)))
        measure_into(opened, device, all_models, settings, progress, expected_ms)
        opened.replace_old(keep=False)
        replay = opened.replay
    found = replay.measurements()
    times = steady_times(found[model.key] for model in models if model.key in found)
    paths = [model.path if keep_models else None for model in models]
    subnets = tuple(
        measured_subnet(table, architecture, float(ms), found.get(model.key), times.get(model.key), path)
        for architecture, ms, model, path in zip(architectures, predicted, models, paths, strict=True)
    )
    return subnets, replay


def is_stale(journal: Path | None, run: Run) -> bool:
    """Whether the file `journal` belongs to another measurement, or is no journal."""
    if journal is None:
        return False
    try:
        return bool(request_difference(read_journal(journal)[0].run, run))
    except InputFileError:
        return True


def measured_subnet(
    table: AnyTable,
    architecture: Architecture,
    predicted_ms: float,
    found: Measurement | None,
    time: SteadyTime | None,
    model: Path | None = None,
) -> Subnet:
    """A network of `table` with what was measured of it, if anything was, and the time that follows."""
    factors = table.correction.interval_factors(DEFAULT_LEVEL)
    interval_ms = None if factors is None else (predicted_ms * factors[0], predicted_ms * factors[1])
    if time is None:
        error = found.error if found is not None else "it was not measured"
        return Subnet(architecture, predicted_ms, None, model=model, error=error or "unknown", interval_ms=interval_ms)
    return Subnet(architecture, predicted_ms, time.ms, time.even_ms, time.odd_ms, model, interval_ms=interval_ms)
