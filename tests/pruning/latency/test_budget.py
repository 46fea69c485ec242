"""What to aim at after some networks were measured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ofa_search.pruning.latency.budget import Candidate, _Trials

#: A network without noise takes so much longer another time.
MARGIN = 1.02


@pytest.mark.parametrize(
    ("measured", "aimed_ms"),
    [
        ([], 2.0),
        ([(2.0, 2.5)], 1.6),  # slower than predicted
        ([(2.0, 1.6)], 2.5),  # faster
        ([(1.0, 1.0), (2.0, 4.0)], 2**0.5),  # between both
        ([(1.0, 1.0), (0.9, 2.5)], 2.0),  # a smaller prediction that fails says nothing of larger ones
    ],
)
def test_aim(measured: list[tuple[float, float]], aimed_ms: float) -> None:
    model: Any = SimpleNamespace()
    found = _Trials(model, {}, 2.0)
    for i, (predicted_ms, measured_ms) in enumerate(measured):
        found.measured[("a", i),] = Candidate({"a": i}, float(i), predicted_ms, measured_ms / MARGIN, 0.0)
    assert found.aimed_ms == pytest.approx(aimed_ms)


@pytest.mark.parametrize(("noise", "slow_ms"), [(0.02, 1.03), (0.001, MARGIN)])
def test_the_margin_is_that_of_the_noise_and_a_least_one(noise: float, slow_ms: float) -> None:
    assert Candidate({}, 1.0, 1.0, 1.0, noise).slow_ms == pytest.approx(slow_ms)
