"""What profiling a search space would measure, and how long that would take."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ofa_profiler.errors import InputFileError
from ofa_profiler.export import count_exported, expected_bytes
from ofa_profiler.measuring.expectation import EXTRA_ROUNDS, NOISE_ROUNDS, SLOW_DEVICE, expected_ms, visit_seconds
from ofa_profiler.measuring.naming import default_name
from ofa_profiler.measuring.progress import Estimator
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.lines import MAX_LINE, parse_line
from ofa_profiler.protocol.records import Device, Run, read_record
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import SearchSpace


@dataclass(frozen=True)
class Plan:
    """What would be measured. The seconds are for measuring alone.

    `min_seconds` is for a quiet PC with the fewest rounds, `max_seconds` for a busy device with the most rounds.
    """

    ops: tuple[Op, ...]
    models_to_export: int
    #: Size of all models in all forms that are tried. They are copied to a device that is not this machine.
    n_bytes: int
    seconds: float
    min_seconds: float
    max_seconds: float
    #: The journal that the estimate follows from; None if it follows from the MACs of the ops.
    basis: Path | None = None
    #: The basis is the journal of the table itself, which would be resumed.
    is_resumed: bool = False
    #: The table is complete: nothing would be measured.
    is_complete: bool = False
    #: Seconds of visits in that journal.
    used_s: float = 0.0
    #: How many times slower than one core of a PC the device is.
    slowness: float = 1.0

    @property
    def kinds(self) -> dict[str, list[Op]]:
        """The ops by their kind."""
        found: dict[str, list[Op]] = {}
        for op in self.ops:
            found.setdefault(op.kind, []).append(op)
        return found


def plan(
    space: SearchSpace,
    settings: Settings,
    *,
    ops: tuple[Op, ...] | None = None,
    out: Path | None = None,
    name: str | None = None,
    device: Device | None = None,
    is_slow: bool = False,
    try_forms: bool = True,
    with_encodings: bool = False,
    cache_dir: Path | None = None,
) -> Plan:
    """What `profile` would do, without doing it. `ops`: only these are measured.

    The estimate follows from a journal in the folder `out`: that of the table `name` (default: the name that `profile`
    gives the table of `device`), else any journal of the same ops and settings. Without one, it follows from the MACs
    of the ops; `is_slow` is for boards and phones. `with_encodings`: the size is that of a kit.
    """
    ops = space.unique_ops() if ops is None else ops
    latency_ms = expected_ms(ops, settings)
    slowness = SLOW_DEVICE if is_slow else 1.0

    # At most so many visits are repeated after a drift of the device.
    most_rounds = settings.max_rounds + (settings.min_rounds if settings.reference_every_s else 0)

    def seconds_of(rounds: float) -> float:
        visits = (visit_seconds(slowness * ms, settings, len(ops)) for ms in latency_ms.values())
        return _within_limit(min(rounds, most_rounds) * sum(visits), settings)

    from_macs = Plan(
        ops,
        len(ops) - count_exported(ops, settings.target, cache_dir=cache_dir),
        expected_bytes(ops, settings.target, with_variants=try_forms, with_encodings=with_encodings),
        seconds_of(settings.min_rounds + EXTRA_ROUNDS + NOISE_ROUNDS),
        seconds_of(settings.min_rounds),
        seconds_of(most_rounds),
        slowness=slowness,
    )
    wanted = name if name is not None else device and default_name(device, [space.name], settings)
    others: dict[Path, Plan] = {}
    for path, replay in _journals(out, latency_ms, settings):
        planned = _from_journal(from_macs, path, replay, latency_ms, settings, is_resumed=path.stem == wanted)
        if planned.is_resumed:
            return planned
        others[path] = planned
    return others[min(others)] if others else from_macs


def _from_journal(
    from_macs: Plan, path: Path, replay: Replay, expected: Mapping[str, float], settings: Settings, *, is_resumed: bool
) -> Plan:
    left_s = Estimator(settings, expected).progress(replay).left_s or 0.0
    is_complete = is_resumed and replay.is_finished(settings.time_limit_s)
    if is_resumed:
        seconds = 0.0 if is_complete else left_s
    else:
        seconds = _within_limit(replay.used_s + (0.0 if replay.end else left_s), settings)
    measured = {key: found.median_ms for key, found in replay.measurements().items() if found.ok}
    return replace(
        from_macs,
        seconds=seconds,
        min_seconds=seconds,
        max_seconds=seconds,
        basis=path,
        is_resumed=is_resumed,
        is_complete=is_complete,
        used_s=replay.used_s if is_resumed else seconds,
        slowness=statistics.median(ms / expected[key] for key, ms in measured.items()) if measured else 1.0,
    )


def _within_limit(seconds: float, settings: Settings) -> float:
    return seconds if settings.time_limit_s is None else min(seconds, settings.time_limit_s)


def _journals(out: Path | None, keys: Mapping[str, float], settings: Settings) -> Iterator[tuple[Path, Replay]]:
    """Yield the journals in `out` of models with these keys and settings that have measurements."""
    for path in sorted(out.glob("*.jsonl")) if out is not None else []:
        try:
            with path.open("rb") as file:
                run = read_record(parse_line(file.readline(MAX_LINE)))
            if not isinstance(run, Run) or run.models.keys() != keys.keys():
                continue
            if _is_like(replace(run.settings, time_limit_s=settings.time_limit_s), settings):
                replay, _ = read_journal(path)
                if replay.n_visits:
                    yield path, replay
        except (OSError, ValueError, InputFileError):  # not a journal, or damaged: `profile` reports its own
            continue


def _is_like(measured: Settings, wanted: Settings) -> bool:
    """Whether the settings are equal. An encoding that is not known before a device is asked may be any."""
    if not wanted.target.encoding:
        measured = replace(measured, target=replace(measured.target, encoding=""))
    return measured == wanted
