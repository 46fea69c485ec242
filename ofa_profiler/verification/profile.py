"""From a device to a calibrated, validated table: first the ops, then whole networks, in one session."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ofa_profiler.base.progress import Reporter
from ofa_profiler.devices.base import Device
from ofa_profiler.errors import UsageError
from ofa_profiler.measuring.naming import table_name
from ofa_profiler.measuring.profile import Profile
from ofa_profiler.measuring.profile import profile as profile_ops
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.extension import is_partial
from ofa_profiler.protocol.journal import NEW
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.tables.corrections import Regression
from ofa_profiler.verification.calibrate import (
    DEFAULT_FITTED,
    DEFAULT_VALIDATED,
    MIN_FITTED,
    calibrate,
    count_fitted,
    networks_journal,
    read_networks,
)
from ofa_profiler.verification.checks import restored


@dataclass(frozen=True)
class NetworkCounts:
    """How many networks calibrate a table, unless users ask for another number, and how they are visited."""

    fitted: int = DEFAULT_FITTED
    validated: int = DEFAULT_VALIDATED
    #: Fields of `Settings` that differ from those of `conditions.network_settings`.
    sampling: Mapping[str, Any] = field(default_factory=dict)


USUAL = NetworkCounts()
#: The share of the time limit that the ops may use; the networks have the rest, and what the ops left over.
_OPS_SHARE = 0.6


def count_networks(networks: int | None) -> int:
    """The number of networks to which a table is fitted, as users ask for it (None: as usual). Raises `UsageError`."""
    wanted = DEFAULT_FITTED if networks is None else networks
    if wanted and wanted < MIN_FITTED:
        raise UsageError(f"{wanted} networks: a calibration takes at least {MIN_FITTED}, or 0 for none")
    return wanted


def ops_settings(settings: Settings, networks: int | None = None) -> Settings:
    """The settings of the ops, if so many networks are measured afterwards (None: as many as usual; 0: none)."""
    if not count_networks(networks) or settings.time_limit_s is None:
        return settings
    return replace(settings, time_limit_s=_OPS_SHARE * settings.time_limit_s)


def networks_limit_s(settings: Settings, used_s: float) -> float | None:
    """The time limit of the networks, after the ops have used `used_s` of that in `settings`."""
    limit_s = settings.time_limit_s
    return None if limit_s is None else max(limit_s - used_s, (1 - _OPS_SHARE) * limit_s)


def profile(
    device: Device,
    space: SearchSpace,
    settings: Settings,
    out: Path,
    *,
    networks: int | None = None,
    more_ops: Sequence[Op] = (),
    name: str | None = None,
    fresh: bool = False,
    try_forms: bool = True,
    cache_dir: Path | None = None,
    progress: Reporter | None = None,
) -> Profile:
    """`ofa_profiler.measuring.profile.profile`, then calibrate the table by `networks` networks and validate it.

    None: by the usual number, or by those that were measured already. 0: by none. `settings.time_limit_s` is for ops
    and networks together.
    """
    begin = time.perf_counter()
    wanted = count_networks(networks)
    if wanted and fresh:
        stem = table_name(name, device.describe(), [space.name], settings)
        fresh = not is_unfinished(out / f"{stem}.jsonl")
    done = profile_ops(
        device,
        space,
        ops_settings(settings, wanted),
        out,
        more_ops=more_ops,
        name=name,
        fresh=fresh,
        try_forms=try_forms,
        cache_dir=cache_dir,
        progress=progress,
    )
    if wanted:
        done = calibrate_profile(done, device, space, settings, networks, USUAL, progress)
    return replace(done, seconds=time.perf_counter() - begin)


def calibrate_profile(
    done: Profile,
    device: Device,
    space: SearchSpace,
    settings: Settings,
    networks: int | None,
    usual: NetworkCounts,
    progress: Reporter | None,
) -> Profile:
    """Calibrate the table of `done`, unless that is done already."""
    session = done.replay.run.created
    left_s = networks_limit_s(settings, done.replay.used_s)
    known = read_networks(networks_journal(done.path), session)
    other_number = networks is not None and known is not None and networks != count_fitted(known)
    is_finished = known is None or known.is_finished(left_s)
    if isinstance(done.table.correction, Regression) and is_finished and not other_number:
        table = done.table if known is None else restored(done.table, known, networks_journal(done.path))
        return replace(done, table=table)
    try:
        calibration = calibrate(
            done.table,
            device,
            fitted=networks or usual.fitted,
            validated=usual.validated,
            sampling=usual.sampling,
            space=space,
            session=session,
            fresh=other_number,
            time_limit_s=left_s,
            progress=progress,
        )
    except UsageError as error:
        return replace(done, uncalibrated=str(error))
    before_s = 0.0 if known is None or other_number else known.measuring_s
    return replace(
        done,
        table=calibration.table,
        measuring_s=done.measuring_s + calibration.replay.measuring_s - before_s,
        was_complete=done.was_complete and calibration.was_complete,
    )


def is_unfinished(journal: Path) -> bool:
    """Whether a measurement was interrupted after the (first) ops of `journal` had been measured.

    Then `--fresh` has replaced the table already, and goes on with more ops or with the networks.
    """
    if journal.with_name(f"{journal.name}{NEW}").exists():
        return False
    known = read_networks(networks_journal(journal))
    ops = read_networks(journal)
    if ops is not None and is_partial(ops.run) and not ops.is_finished(None):
        return True
    return (
        known is not None
        and ops is not None
        and known.end is None
        and (known.run.about.get("session") == ops.run.created)
    )
