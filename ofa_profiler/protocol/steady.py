"""The time of networks in a session, as little as possible moved by other programs on the device.

Other programs only make a network slower, and a long network more often than a short one. The 10th percentile of a
visit is hardly moved by them, nor is the lower quartile over visits. On two busy cores, two measurements of a network
differ half as much by these as by medians (`docs/accuracy.md`). The level is that of medians, which is what a user of
the network sees: one factor for all networks of the session takes it there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ofa_profiler.protocol.measurement import Measurement

#: For 1, 2, ... degrees of freedom, as in the agent.
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class SteadyTime:
    """The time of a network in milliseconds; also of the even and the odd rounds alone, None after one round."""

    ms: float
    even_ms: float | None = None
    odd_ms: float | None = None


def steady_times(measurements: Iterable[Measurement]) -> dict[str, SteadyTime]:
    """The times of the networks of one session, by key. Those that failed are left out."""
    usable = [measurement for measurement in measurements if measurement.ok]
    if not usable:
        return {}
    low = {m.key: np.array([np.percentile(samples, 10) for samples in m.rounds_ms]) for m in usable}
    usual_ms = [_lower_quartile([float(np.median(samples)) for samples in m.rounds_ms]) for m in usable]
    level = float(np.median([ms / _lower_quartile(low[m.key]) for ms, m in zip(usual_ms, usable, strict=True)]))

    def time_of(rounds: np.ndarray) -> SteadyTime:
        parts = [rounds] if len(rounds) < 2 else [rounds, rounds[::2], rounds[1::2]]
        return SteadyTime(*(level * _lower_quartile(part) for part in parts))

    return {key: time_of(rounds) for key, rounds in low.items()}


def t_975(degrees: int) -> float:
    """The 97.5% quantile of Student's t distribution for so many degrees of freedom, at least 1."""
    return _T_975[min(max(degrees, 1), len(_T_975)) - 1]


def noise_of(times: Iterable[SteadyTime]) -> float:
    """The mean relative difference between the even and the odd rounds; NaN after one round."""
    found = [abs(time.even_ms / time.odd_ms - 1) for time in times if time.even_ms and time.odd_ms]
    return float(np.mean(found)) if found else math.nan


def session_noise(times: Iterable[SteadyTime]) -> float | None:
    """Half of the 95% confidence interval of a time, as a fraction: one for all networks of a session.

    It follows from the differences between the even and the odd rounds of all of them. A time is about the mean of both
    halves, so it has half the error of their difference. None after one round.
    """
    offs = [math.log(time.even_ms / time.odd_ms) for time in times if time.even_ms and time.odd_ms]
    if not offs:
        return None
    return t_975(len(offs)) * float(np.sqrt(np.mean(np.square(offs)))) / 2


def _lower_quartile(values: Iterable[float]) -> float:
    return float(np.quantile(np.fromiter(values, dtype=float), 0.25))
