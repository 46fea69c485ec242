"""What profiling a search space would measure, and how long that would take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ofa_profiler.errors import InputFileError
from ofa_profiler.export import count_exported
from ofa_profiler.measuring.expectation import EXTRA_ROUNDS, SLOW_DEVICE, expected_ms, visit_seconds
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
    seconds: float
    min_seconds: float
    max_seconds: float
    #: The journal that the estimate follows from; None if it follows from the MACs of the ops.
    basis: Path | None = None
    #: The table is complete: nothing would be measured.
    is_complete: bool = False

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
    out: Path | None = None,
    name: str | None = None,
    device: Device | None = None,
    is_slow: bool = False,
    cache_dir: Path | None = None,
) -> Plan:
    """What `profile` would do, without doing it.

    The estimate follows from a journal in the folder `out`: that of the table `name` (default: the name that `profile`
    gives the table of `device`), else any journal of the same ops and settings. Without one, it follows from the MACs
    of the ops; `is_slow` is for boards and phones.
    """
    ops = space.unique_ops()
    to_export = len(ops) - count_exported(ops, settings.target, cache_dir=cache_dir)
    latency_ms = expected_ms(ops, settings)
    others: dict[Path, float] = {}
    for path, replay in _journals(out, latency_ms, settings):
        left_s = Estimator(settings, latency_ms).progress(replay).left_s or 0.0
        if path.stem == (name if name is not None else device and default_name(device, [space.name], settings)):
            is_complete = replay.is_finished(settings.time_limit_s)
            left_s = 0.0 if is_complete else left_s
            return Plan(ops, to_export, left_s, left_s, left_s, path, is_complete)
        others[path] = _within_limit(replay.used_s + (0.0 if replay.end else left_s), settings)
    if others:
        path, seconds = min(others.items())
        return Plan(ops, to_export, seconds, seconds, seconds, path)

    def seconds_of(rounds: float, slowness: float) -> float:
        visits = (visit_seconds(slowness * ms, settings, len(ops)) for ms in latency_ms.values())
        return _within_limit(min(rounds, settings.max_rounds) * sum(visits), settings)

    slowness = SLOW_DEVICE if is_slow else 1.0
    return Plan(
        ops,
        to_export,
        seconds_of(settings.min_rounds + EXTRA_ROUNDS, slowness),
        seconds_of(settings.min_rounds, slowness),
        seconds_of(settings.max_rounds, slowness),
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
            if replace(run.settings, time_limit_s=settings.time_limit_s) == settings:
                replay, _ = read_journal(path)
                if replay.n_visits:
                    yield path, replay
        except (OSError, ValueError, InputFileError):  # not a journal, or damaged: `profile` reports its own
            continue
