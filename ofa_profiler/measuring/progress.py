"""The progress of a measurement: what is done, and an estimate of the time left.

The unit is the visit. The number of visits is not known before the end, so the total is an estimate too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ofa_profiler.base.progress import Progress
from ofa_profiler.measuring.expectation import EXTRA_ROUNDS, visit_seconds
from ofa_profiler.protocol.records import Visit
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.steady import t_975

#: How many measured models the expected number of rounds counts as much as.
_PRIOR_MODELS = 10
#: A new estimate replaces the previous one within this many seconds of visits, or this share of the time left.
_SMOOTH_S, _SMOOTH_SHARE = 2.0, 0.1
#: With more models than this, an estimate serves for several records.
_MODELS_PER_RECORD = 500


@dataclass(frozen=True)
class MeasuringProgress(Progress):
    """The progress of the phase `measure`: visits done, of an estimated `total`."""

    #: Models that need no more visits, of all `models`. Models that failed are among them.
    finished: int = 0
    models: int = 0
    failed: int = 0

    @property
    def visits(self) -> int:
        """The same as `done`."""
        return self.done


class Estimator:
    """Estimates the progress of a measurement again and again, so that the time left does not jump.

    `expected_ms` are the expected latencies of the models. Only their ratios count once models are measured. Without
    them, all models are expected to take as long as the average one.
    """

    def __init__(self, settings: Settings, expected_ms: Mapping[str, float] | None = None) -> None:
        self._settings = settings
        self._expected_ms = expected_ms or {}
        self._measured_ms: dict[str, float] = {}
        self._visits_left: dict[str, float] = {}
        #: The share of these visits that the time limit allows.
        self._share = 1.0
        self._left_s: float | None = None
        self._used_s = 0.0
        self._age = 0

    def progress(self, replay: Replay, waiting: str = "") -> MeasuringProgress:
        """Return the progress of the measurement in `replay`."""
        self._update(replay)
        left = self._visits_left.values()
        finished = sum(count == 0 for count in left)
        failed = sum(bool(visits) and not visits[-1].ok for visits in replay.visits.values())
        total = replay.n_visits + math.ceil(self._share * sum(left) - 1e-9)
        words = f"{finished} of {len(left)} finished" + (f", {failed} failed" if failed else "")
        return MeasuringProgress(
            "measure", replay.n_visits, total, self._left_s, words, waiting, finished, len(left), failed
        )

    def _update(self, replay: Replay) -> None:
        """Estimate again. With many models, not after every record: the host may be the machine that is measured."""
        self._age += 1
        is_over = replay.is_finished(self._settings.time_limit_s)
        if self._visits_left and not is_over and self._age * _MODELS_PER_RECORD < len(replay.visits):
            return
        self._age = 0
        self._visits_left = dict.fromkeys(replay.visits, 0.0) if is_over else _visits_left(replay, self._settings)
        self._left_s = self._smoothed(replay.used_s, self._seconds_left(replay))

    def _seconds_left(self, replay: Replay) -> float | None:
        """The seconds of the visits that are left; None before the first visit."""
        own_s = {key: statistics.fmean(visit.seconds for visit in v) for key, v in replay.visits.items() if v}
        if not own_s:
            return None
        seconds = self._seconds_per_visit(replay, own_s)
        visiting_s = sum(own_s[key] * len(replay.visits[key]) for key in own_s)
        overhead = replay.used_s / visiting_s if visiting_s else 1.0  # reference visits, repeated visits
        left_s = overhead * sum(count * seconds[key] for key, count in self._visits_left.items())
        if self._settings.time_limit_s is not None:
            first_round_s = overhead * sum(seconds[key] for key in replay.unvisited)
            allowed_s = max(self._settings.time_limit_s - replay.used_s, first_round_s)
            self._share = min(1.0, allowed_s / left_s) if left_s else 1.0
            left_s = min(left_s, allowed_s)
        return left_s

    def _seconds_per_visit(self, replay: Replay, own_s: Mapping[str, float]) -> dict[str, float]:
        """The seconds of a visit of each model: its own, or as expected from the models that are measured."""
        for key in own_s.keys() & self._expected_ms.keys() - self._measured_ms.keys():
            if replay.visits[key][0].ok:
                self._measured_ms[key] = statistics.median(replay.visits[key][0].samples_ns) / 1e6
        known = self._measured_ms.keys() & own_s.keys()
        average_s = dict.fromkeys(replay.visits, statistics.fmean(own_s.values()))
        if not known:
            return average_s | dict(own_s)
        scale = statistics.median(self._measured_ms[key] / self._expected_ms[key] for key in known)
        count = len(replay.visits)
        expected_s = {key: visit_seconds(scale * ms, self._settings, count) for key, ms in self._expected_ms.items()}
        factor = sum(own_s[key] for key in known) / sum(expected_s[key] for key in known)
        return average_s | {key: factor * seconds for key, seconds in expected_s.items()} | dict(own_s)

    def _smoothed(self, used_s: float, left_s: float | None) -> float | None:
        passed_s, self._used_s = used_s - self._used_s, used_s
        if not left_s or self._left_s is None:
            return left_s
        due_s = max(0.0, self._left_s - passed_s)
        weight = 1 - math.exp(-passed_s / max(_SMOOTH_S, _SMOOTH_SHARE * left_s))
        return due_s + weight * (left_s - due_s)


def _visits_left(replay: Replay, settings: Settings) -> dict[str, float]:
    """How many more visits each model is expected to need."""
    known: dict[str, float] = {}
    for key, visits in replay.visits.items():
        if visits and not visits[-1].ok:
            known[key] = 0
        elif len(visits) >= settings.min_rounds:
            known[key] = _further_visits(visits, settings)
    most = max(0, settings.max_rounds - settings.min_rounds)
    extras = [len(replay.visits[key]) + more - settings.min_rounds for key, more in known.items()]
    extra = (_PRIOR_MODELS * min(EXTRA_ROUNDS, most) + sum(max(0.0, e) for e in extras)) / (_PRIOR_MODELS + len(extras))
    return {key: known.get(key, settings.min_rounds - len(visits) + extra) for key, visits in replay.visits.items()}


def _further_visits(visits: Sequence[Visit], settings: Settings) -> float:
    """How many more visits a model needs: its interval shrinks with the root of their number, and with the quantile."""
    rounds, width = len(visits), visits[-1].half_width
    if rounds >= settings.max_rounds or (width is not None and width <= settings.target_half_width):
        return 0
    if width is None:
        return max(1, settings.max_rounds - rounds)
    for more in range(1, settings.max_rounds - rounds):
        shrunk = width * math.sqrt(rounds / (rounds + more)) * t_975(rounds + more - 1) / t_975(rounds - 1)
        if shrunk <= settings.target_half_width:
            return more
    return max(1, settings.max_rounds - rounds)
