"""The progress of a measurement: what is done, and an estimate of the time left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ofa_profiler.base.progress import Progress
from ofa_profiler.protocol.records import Visit
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings


@dataclass(frozen=True)
class MeasuringProgress(Progress):
    """The progress of the phase `measure`: models done, of `total`."""

    #: Models that failed, which are among those done.
    failed: int = 0
    visits: int = 0


def estimate(replay: Replay, settings: Settings, *, waiting: str = "") -> MeasuringProgress:
    """The progress of the measurement in `replay`, and how long the rest will take."""
    done, failed, used_s, left = 0, 0, replay.used_s, 0.0
    for visits in replay.visits.values():
        visits_left = _visits_left(visits, settings)
        done += visits_left == 0
        failed += bool(visits) and not visits[-1].ok
        left += visits_left
    left_s = None
    if replay.n_visits:
        visit_s = used_s / replay.n_visits
        left_s = left * visit_s
        if settings.time_limit_s is not None:
            first_round_s = len(replay.unvisited) * visit_s
            left_s = min(left_s, max(settings.time_limit_s - used_s, first_round_s))
    counts = [f"{replay.n_visits} visits"] * bool(replay.n_visits) + [f"{failed} failed"] * bool(failed)
    words = ", ".join(counts)
    return MeasuringProgress("measure", done, len(replay.visits), left_s, words, waiting, failed, replay.n_visits)


def _visits_left(visits: Sequence[Visit], settings: Settings) -> float:
    """How many more visits a model will need: its interval shrinks with the root of their number."""
    rounds = len(visits)
    if rounds and not visits[-1].ok:
        return 0
    if rounds < settings.min_rounds:
        return settings.min_rounds - rounds
    width = visits[-1].half_width
    if rounds >= settings.max_rounds or (width is not None and width <= settings.target_half_width):
        return 0
    needed = rounds * (width / settings.target_half_width) ** 2 if width is not None else settings.max_rounds
    return max(1.0, min(needed, settings.max_rounds) - rounds)
