"""A new device for a tenth of the price: a few ops and networks are measured, and the other ops are inferred.

    base table -> order of the ops -> the first 5% measured, the others inferred -> a few networks fit and validate
    the correction -> if the error is too large, twice as many ops are measured

`tables/transfer/` infers. The journal of the ops is extended, so an interrupted call resumes, and `profile` without a
base measures the rest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ofa_profiler.base.progress import Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import UsageError
from ofa_profiler.export import get_exporter
from ofa_profiler.export.forms.base import candidates
from ofa_profiler.measuring.naming import table_name
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.measuring.profile import profile as profile_ops
from ofa_profiler.measuring.request import Part
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.tables.table import LatencyTable
from ofa_profiler.tables.transfer import Base, Order, order_of_measuring
from ofa_profiler.verification.calibrate import networks_journal, read_networks
from ofa_profiler.verification.profile import NetworkCounts, calibrate_profile, is_unfinished, ops_settings

#: The error of the validation (MAPE) at which no more ops are measured.
TARGET_MAPE = 0.03
#: The share of the ops that is measured first, and the fewest ops.
_FIRST_SHARE, _FIRST = 0.05, 12
#: How many times as many ops are measured if the error is too large.
_GROWTH = 2
#: Fewer networks in fewer rounds than in a whole profile, where they would cost more than the ops.
FEW_NETWORKS = NetworkCounts(16, 10, {"min_rounds": 4, "max_rounds": 12, "target_half_width": 0.02})


def order_for(space: SearchSpace, settings: Settings, base: Base) -> Order:
    """The ops of `space` in the order of measuring: first those without which nothing can be inferred.

    One op of each group of layers that has forms is among them, so that the device can try the forms.
    """
    get_exporter(settings.target)  # its forms
    groups = {op.key: tuple(candidates(settings.target, op.graph)) for op in space.unique_ops()}
    return order_of_measuring(space, base.ms, groups)


def first_count(order: Order) -> int:
    """The number of ops that are measured first."""
    return min(len(order.ops), max(order.needed, _FIRST, math.ceil(_FIRST_SHARE * len(order.ops))))


def next_count(measured: int, order: Order) -> int:
    """The number of ops that are measured if `measured` of them were too few."""
    return min(len(order.ops), _GROWTH * measured)


def check_base(base: LatencyTable, csv: Path) -> None:
    """Raise `UsageError` if `base` is the table that would be written."""
    if base.path is not None and base.path.exists() and csv.exists() and base.path.samefile(csv):
        raise UsageError(f"--like {base.path} is the table that would be written: use another --name or --out")


def part_of(order: Order, base: Base, journal: Path | None) -> Part:
    """The ops to measure first, and those that an interrupted or finished call has in its `journal` already."""
    count = first_count(order)
    known = None if journal is None else read_networks(journal)
    if known is not None and known.run.models.keys() <= {op.key for op in order.ops}:
        count = max(count, len(known.run.models))
    return _part(order, base, count)


def _part(order: Order, base: Base, count: int) -> Part:
    chosen = {op.key for op in order.ops[:count]}
    return Part(tuple(op for op in base.ops if op.key in chosen), base)


def profile_like(
    device: Device,
    space: SearchSpace,
    settings: Settings,
    out: Path,
    *,
    table: LatencyTable,
    networks: int | None = None,
    name: str | None = None,
    fresh: bool = False,
    try_forms: bool = True,
    cache_dir: Path | None = None,
    progress: Reporter | None = None,
) -> Profile:
    """`profile`, but ops are inferred from `table`, that of a similar device or of other settings.

    More and more ops are measured until the error of the validation is at most `TARGET_MAPE`, or until
    `settings.time_limit_s`. `networks`: how many the correction is fitted to. Raises `UsageError` for a table that has
    too few ops of the space, or without networks.
    """
    begin = time.perf_counter()
    if networks == 0:
        raise UsageError("--like needs whole networks: only their error tells when enough ops are measured")
    stem = table_name(name, device.describe(), [space.name], settings)
    journal = out / f"{stem}.jsonl"
    check_base(table, out / f"{stem}.csv")
    base = Base.of(table, space)
    order = order_for(space, settings, base)
    fresh = fresh and not is_unfinished(journal)
    done: Profile | None = None
    part = part_of(order, base, None if fresh else journal)
    while True:
        step = profile_ops(
            device,
            space,
            ops_settings(settings, networks or FEW_NETWORKS.fitted),
            out,
            part=part,
            name=stem,
            fresh=fresh,
            try_forms=try_forms,
            cache_dir=cache_dir,
            progress=progress,
        )
        step = calibrate_profile(step, device, space, settings, networks, FEW_NETWORKS, progress)
        done = step if done is None else _together(done, step)
        count = next_count(len(part.ops), order)
        if count == len(part.ops) or not _is_wanted(done, settings):
            return replace(done, seconds=time.perf_counter() - begin)
        part, fresh = _part(order, base, count), False


def _is_wanted(done: Profile, settings: Settings) -> bool:
    """Whether more ops should be measured."""
    validation = done.table.metadata.get("validation")
    mape = validation.get("mape") if isinstance(validation, Mapping) else None
    if done.uncalibrated or mape is None or mape <= TARGET_MAPE:
        return False
    networks = read_networks(networks_journal(done.path), done.replay.run.created)
    used_s = done.replay.used_s + (networks.used_s if networks is not None else 0.0)
    return settings.time_limit_s is None or used_s < settings.time_limit_s


def _together(before: Profile, now: Profile) -> Profile:
    return replace(
        now,
        export_s=before.export_s + now.export_s,
        measuring_s=before.measuring_s + now.measuring_s,
        was_complete=before.was_complete and now.was_complete,
    )
