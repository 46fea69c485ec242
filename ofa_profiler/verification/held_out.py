"""Errors for networks that a fit has not seen, measured at another time than those that it has. Intervals follow.

The rounds of a session are divided into an earlier and a later half. A fit to one half predicts the networks of the
other half, those of the fit by leave-one-out. So the errors also contain what changes on a device within minutes, such
as the load by other programs, and how well a network is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.steady import steady_times
from ofa_profiler.tables.corrections.regression import ridge
from ofa_profiler.verification.agreement import relative_errors


class Group(NamedTuple):
    """Networks by name, and their features (N, F)."""

    names: Sequence[str]
    features: NDArray[np.float64]


def errors_between_halves(
    fitted: Group,
    others: Group,
    found: Mapping[str, Measurement],
    *,
    plain: NDArray[np.float64] | None = None,
) -> tuple[list[float], list[float]]:
    """The errors abs(measured - predicted) / measured of `fitted` and `others`, two of each network.

    `found` are the measurements of a session by name, with at least one round of each network. A single round is both
    halves. `plain` is that of `ridge`.
    """
    halves = _halves(found)
    measured = [[np.array([half[name] for name in group.names]) for half in halves] for group in (fitted, others)]
    errors: tuple[list[float], list[float]] = ([], [])
    for before, after in ((0, 1), (1, 0)):
        seen_ms = measured[0][before]
        weights, left_out = ridge(fitted.features, seen_ms, plain)
        predictions = [seen_ms * (1 - left_out), others.features @ weights if others.names else np.empty(0)]
        for kept, predicted_ms, times_ms in zip(errors, predictions, measured, strict=True):
            kept.extend(map(float, relative_errors(predicted_ms, times_ms[after])))
    return errors


def _halves(found: Mapping[str, Measurement]) -> list[dict[str, float]]:
    """The times of the networks in the earlier and in the later rounds."""
    parts = []
    for later in (False, True):
        rounds = {key: _half(m.rounds_ms, later=later) for key, m in found.items() if m.ok}
        times = steady_times(replace(found[key], rounds_ms=half) for key, half in rounds.items())
        parts.append({key: time.ms for key, time in times.items()})
    return parts


def _half(rounds: tuple[tuple[float, ...], ...], *, later: bool) -> tuple[tuple[float, ...], ...]:
    middle = max(1, len(rounds) // 2)
    return rounds[min(middle, len(rounds) - 1) :] if later else rounds[:middle]
