"""Errors for networks that a fit has not seen, measured at another time than those that it has. Intervals follow.

The rounds of a session are divided into an earlier and a later half. A fit to one half predicts the networks of the
other half, those of the fit by leave-one-out. So the errors also contain what changes on a device within minutes, such
as the load by other programs, and how well a network is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.steady import steady_times
from ofa_profiler.tables.corrections.base import OpMs
from ofa_profiler.tables.corrections.regression import network_features, ridge
from ofa_profiler.verification.agreement import relative_errors
from ofa_profiler.verification.networks import network_name


def errors_between_halves(
    fitted: Sequence[Architecture], others: Sequence[Architecture], found: Mapping[str, Measurement], op_ms: OpMs
) -> tuple[list[float], list[float]]:
    """The errors abs(measured - predicted) / measured of `fitted` and `others`, two of each network.

    `found` are the measurements of a session by `network_name`, with at least one round of each network. A single round
    is both halves.
    """
    halves = _halves(found)
    measured = [[_ms_of(networks, half) for half in halves] for networks in (fitted, others)]
    features = [network_features(networks, op_ms) if networks else np.empty((0, 0)) for networks in (fitted, others)]
    errors: tuple[list[float], list[float]] = ([], [])
    for before, after in ((0, 1), (1, 0)):
        seen_ms = measured[0][before]
        weights, left_out = ridge(features[0], seen_ms)
        predictions = [seen_ms * (1 - left_out), features[1] @ weights if others else np.empty(0)]
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


def _ms_of(networks: Sequence[Architecture], times_ms: Mapping[str, float]) -> NDArray[np.float64]:
    return np.array([times_ms[network_name(architecture)] for architecture in networks])
