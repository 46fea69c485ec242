"""`steady_times`: the time of networks that other programs disturb."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.steady import steady_times


def disturbed(rng: np.random.Generator, key: str, ms: float, share: float) -> Measurement:
    """12 rounds of 40 samples; another program doubles a `share` of them, and slows half of the rounds by 10%."""
    rounds = []
    for _ in range(12):
        samples = ms * (1 + 0.01 * rng.random(40)) * (1 + (rng.random(40) < share)) * (1 + 0.1 * (rng.random() < 0.5))
        rounds.append(tuple(map(float, samples)))
    return Measurement(key, tuple(rounds))


def test_disturbed_networks_keep_their_ratios() -> None:
    rng = np.random.default_rng(0)
    true_ms = rng.uniform(1, 20, 50)
    shares = np.linspace(0, 0.6, 50)
    found = [disturbed(rng, str(i), ms, share) for i, (ms, share) in enumerate(zip(true_ms, shares, strict=True))]
    times = np.array([time.ms for time in steady_times(found).values()])
    medians = np.array([m.median_ms for m in found])
    ratios, of_medians = times / true_ms, medians / true_ms
    assert ratios.max() / ratios.min() < 1.02
    assert of_medians.max() / of_medians.min() > 1.5


def test_halves_of_the_rounds_and_networks_that_failed() -> None:
    rounds = ((1.0, 1.0), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0))
    times = steady_times([Measurement("a", rounds), Measurement("b", (), "failed", "why"), Measurement("c", ((3.0,),))])
    assert times.keys() == {"a", "c"}
    assert (times["a"].even_ms, times["a"].odd_ms) == (1.0, 2.0)
    assert (times["c"].ms, times["c"].even_ms, times["c"].odd_ms) == (3.0, None, None)
    assert steady_times([]) == {}


@given(
    st.lists(
        st.lists(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=9), min_size=1, max_size=5),
        min_size=1,
        max_size=6,
    ),
    st.floats(0.1, 10),
)
def test_times_scale_with_the_samples(samples: list[list[list[float]]], factor: float) -> None:
    found = [Measurement(str(i), tuple(map(tuple, rounds))) for i, rounds in enumerate(samples)]
    scaled = [Measurement(m.key, tuple(tuple(factor * x for x in r) for r in m.rounds_ms)) for m in found]
    times, other = steady_times(found), steady_times(scaled)
    for key, time in times.items():
        assert other[key].ms == pytest.approx(factor * time.ms)


@given(st.lists(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=9), min_size=1, max_size=5))
def test_one_network_alone_has_the_lower_quartile_of_its_medians(rounds: list[list[float]]) -> None:
    (time,) = steady_times([Measurement("a", tuple(map(tuple, rounds)))]).values()
    assert time.ms == pytest.approx(np.quantile([np.median(samples) for samples in rounds], 0.25))
