"""Whole networks: what a latency table predicts, compared with what the device measures.

A table is a sum of ops that were measured alone. How far that sum is from the latency of a network depends on the
device and the runtime, so it is measured and kept with the table. `docs/accuracy.md` explains the difference.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ofa_profiler.base.files import write_text
from ofa_profiler.base.progress import Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces import SearchSpace, get_space
from ofa_profiler.spaces.sampling import draw_spread
from ofa_profiler.tables.csv_file import metadata_text, read_metadata
from ofa_profiler.tables.mixed import AnyTable, MixedTable
from ofa_profiler.verification.conditions import covered_space, settings_of
from ofa_profiler.verification.doubts import other_conditions
from ofa_profiler.verification.mixed import store_mixed
from ofa_profiler.verification.networks import is_stale, measure_networks, network_name
from ofa_profiler.verification.result import DEFAULT_SUBNETS, DEFAULT_TIME_LIMIT_S, Subnet, Verification

#: Fewer networks than the first number say nothing about a table.
MIN_SUBNETS, MAX_SUBNETS = 3, 10_000


def verify(
    table: AnyTable,
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
    given. An interrupted measurement in the file `journal` is resumed, unless `fresh`. Networks that the correction of
    the table was fitted to are not drawn.

    Raises `UsageError` for a table that lacks measurement settings or does not cover the space, `DeviceError`
    when the device fails or fewer than `MIN_SUBNETS` networks could be measured.
    """
    settings = replace(settings_of(table), time_limit_s=time_limit_s)
    fewest = MIN_SUBNETS
    if architectures is None:
        if not MIN_SUBNETS <= subnets <= MAX_SUBNETS:
            raise UsageError(f"{subnets} networks: a verification takes {MIN_SUBNETS} to {MAX_SUBNETS}")
        space = covered_space(table, space)
        fitted = getattr(table.correction, "networks", ())
        rng = np.random.default_rng(seed)
        drawn = draw_spread(space, table.cost(space), subnets, rng, lambda a: network_name(a) in fitted, MIN_SUBNETS)
        architectures = drawn[0]
    else:
        architectures, fewest = list(dict.fromkeys(architectures)), 1
        space = _space_of(architectures, space)
    measured, replay = measure_networks(
        table,
        device,
        space,
        architectures,
        settings,
        journal=journal,
        replaces=lambda run: fresh or is_stale(journal, run),
        keep_models=keep_models,
        progress=progress,
    )
    check_enough(measured, fewest)
    return Verification(measured, replay.devices[0], replay.end, seed, current_date())


def current_date() -> str:
    """Now, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _space_of(architectures: Sequence[Architecture], space: SearchSpace | None) -> SearchSpace:
    names = {architecture.space for architecture in architectures} | ({space.name} if space is not None else set())
    if len(names) != 1:
        raise UsageError(f"architectures of {', '.join(sorted(names)) or 'no space'}: give networks of one space")
    return get_space(names.pop())


def check_enough(subnets: tuple[Subnet, ...], fewest: int) -> None:
    """Raise `DeviceError` if fewer than `fewest` networks were measured."""
    failed = [subnet for subnet in subnets if subnet.error is not None]
    if len(subnets) - len(failed) < fewest:
        raise DeviceError(
            f"{len(failed)} of {len(subnets)} networks failed, too many for a verification; "
            f"the first with: {failed[0].error}"
        )


def store_validation(table: AnyTable, verification: Verification) -> bool:
    """Write the figures into the `validation` of the JSON beside `table`, whole or not at all.

    For tables of both precisions, it is that of `mixed` in both.

    For a verification under other conditions than the table's (see `other_conditions`), nothing is written and False is
    returned.
    """
    if table.path is None or other_conditions(table, verification.device):
        return False
    if isinstance(table, MixedTable):
        store_mixed(table, {"validation": verification.validation()})
        return True
    path = table.path.with_suffix(".json")
    write_text(path, metadata_text({**read_metadata(path), "validation": verification.validation()}))
    return True
