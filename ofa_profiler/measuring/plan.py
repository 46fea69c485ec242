"""What profiling a search space would measure, and how long that would take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ofa_profiler.export import count_exported
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces import SearchSpace

#: What a visit costs besides its samples: the warm-up as a fraction of them, loading in seconds.
_WARM_UP, _LOAD_S = 0.15, 0.01


@dataclass(frozen=True)
class Plan:
    """What would be measured. The seconds are for measuring alone, with the fewest rounds and with the most."""

    ops: tuple[Op, ...]
    models_to_export: int
    min_seconds: float
    max_seconds: float


def plan(space: SearchSpace, settings: Settings, *, cache_dir: Path | None = None) -> Plan:
    """What `profile` would do, without doing it."""
    ops = space.unique_ops()
    exported = count_exported(ops, settings.target, cache_dir=cache_dir)
    round_s = len(ops) * (settings.visit_s * (1 + _WARM_UP) + _LOAD_S)
    most_s = round_s * settings.max_rounds
    if settings.time_limit_s is not None:
        most_s = min(most_s, settings.time_limit_s)
    return Plan(ops, len(ops) - exported, min(round_s * settings.min_rounds, most_s), most_s)
