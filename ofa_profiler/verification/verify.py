"""Whole networks: what a latency table predicts, compared with what the device measures.

A table is a sum of ops that were measured alone. How far that sum is from the latency of a network depends on the
device and the runtime, so it is measured and kept with the table. `docs/accuracy.md` explains the difference.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from ofa_profiler.base.files import write_text
from ofa_profiler.base.progress import Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import DeviceError, InputFileError, UsageError
from ofa_profiler.measuring.session import measure_into
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.protocol.identity import request_difference
from ofa_profiler.protocol.journal import Journal, read_journal
from ofa_profiler.protocol.kit import run_record
from ofa_profiler.protocol.records import Run
from ofa_profiler.spaces import SearchSpace, get_space
from ofa_profiler.spaces.sampling import draw_spread
from ofa_profiler.tables.csv_file import metadata_text, read_metadata
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.verification.conditions import covered_space, settings_of
from ofa_profiler.verification.doubts import other_conditions
from ofa_profiler.verification.networks import export_networks, measured_subnet
from ofa_profiler.verification.result import DEFAULT_SUBNETS, DEFAULT_TIME_LIMIT_S, Subnet, Verification

#: Fewer networks than the first number say nothing about a table.
MIN_SUBNETS, MAX_SUBNETS = 3, 10_000


def verify(
    table: LatencyTable,
    device: Device,
    *,
    subnets: int = DEFAULT_SUBNETS,
    seed: int = 0,
    space: SearchSpace | None = None,
    architectures: Sequence[Architecture] | None = None,
    time_limit_s: float | None = DEFAULT_TIME_LIMIT_S,
    keep_models: Path | None = None,
    journal: Path | None = None,
    fresh: bool = False,
    progress: Reporter | None = None,
) -> Verification:
    """Predict and measure `subnets` random networks of `space` (default: the only one of the table).

    If `architectures` are given, these networks of one space are measured instead. The networks run as the ops of the
    table did: runtime, provider, precision, threads, batch and forms are the table's. Their weights are made up. Rounds
    of visits end at `time_limit_s`, but not before the first one. The models are kept in the folder `keep_models`, if
    given. An interrupted measurement in the file `journal` is resumed, unless `fresh`.

    Raises `UsageError` for a table that lacks measurement settings or does not cover the space, `DeviceError`
    when the device fails or fewer than `MIN_SUBNETS` networks could be measured.
    """
    settings = replace(settings_of(table), time_limit_s=time_limit_s)
    fewest = MIN_SUBNETS
    if architectures is None:
        if not MIN_SUBNETS <= subnets <= MAX_SUBNETS:
            raise UsageError(f"{subnets} networks: a verification takes {MIN_SUBNETS} to {MAX_SUBNETS}")
        space = covered_space(table, space)
        architectures, predicted = draw_spread(space, table.cost(space), subnets, np.random.default_rng(seed))
    else:
        architectures, fewest = list(dict.fromkeys(architectures)), 1
        space = _space_of(architectures, space)
        predicted = table.predict_ms(architectures)
    with ExitStack() as stack:
        folder = keep_models or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ofa-verify-")))
        release = device.prepare_runtime(settings.target.runtime)
        models = export_networks(space, architectures, folder, settings.target, table.forms, progress, release)
        run = run_record(models, settings, {"spaces": [space.name], "resolutions": list(space.resolutions)})
        predicted_ms = {model.key: float(ms) for model, ms in zip(models, predicted, strict=True)}
        fresh = fresh or (journal is not None and _is_stale(journal, run))
        opened = stack.enter_context(Journal(journal, run, fresh=fresh))
        measure_into(opened, device, models, settings, progress, predicted_ms)
        opened.replace_old(keep=False)
        replay = opened.replay
    found = replay.measurements()
    measured = tuple(
        measured_subnet(architecture, float(ms), found.get(model.key), model.path if keep_models else None)
        for architecture, ms, model in zip(architectures, predicted, models, strict=True)
    )
    _check_enough(measured, fewest)
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return Verification(measured, replay.devices[0], replay.end, seed, date)


def _is_stale(journal: Path, run: Run) -> bool:
    """Whether the file `journal` belongs to another verification, or is no journal."""
    try:
        return bool(request_difference(read_journal(journal)[0].run, run))
    except InputFileError:
        return True


def _space_of(architectures: Sequence[Architecture], space: SearchSpace | None) -> SearchSpace:
    names = {architecture.space for architecture in architectures} | ({space.name} if space is not None else set())
    if len(names) != 1:
        raise UsageError(f"architectures of {', '.join(sorted(names)) or 'no space'}: give networks of one space")
    return get_space(names.pop())


def _check_enough(subnets: tuple[Subnet, ...], fewest: int) -> None:
    failed = [subnet for subnet in subnets if subnet.error is not None]
    if len(subnets) - len(failed) < fewest:
        raise DeviceError(
            f"{len(failed)} of {len(subnets)} networks failed, too many for a verification; "
            f"the first with: {failed[0].error}"
        )


def store_validation(table: LatencyTable, verification: Verification) -> bool:
    """Write the figures into the `validation` of the JSON beside `table`, whole or not at all.

    For a verification under other conditions than the table's (see `other_conditions`), nothing is written and False is
    returned.
    """
    if table.path is None or other_conditions(table, verification.device):
        return False
    path = table.path.with_suffix(".json")
    write_text(path, metadata_text({**read_metadata(path), "validation": verification.validation()}))
    return True
