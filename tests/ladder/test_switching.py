"""Switching between rungs, as properties: any rungs, targets and loads."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ofa_profiler.errors import UsageError
from ofa_search.ladder import Switch, Switching

HOW = Switching()
#: So many slow frames in a row are no accident.
NOTICED = HOW.window - math.ceil(HOW.share * HOW.window) + 1

rungs = st.lists(st.floats(0.1, 100), min_size=1, max_size=6, unique=True).map(sorted)
targets = st.floats(0.05, 200)
loads = st.floats(1, 20)


def best(expected_ms: list[float], limit_ms: float, load: float = 1.0) -> int:
    return max((number for number, ms in enumerate(expected_ms) if ms * load <= limit_ms), default=0)


def serve(switch: Switch, expected_ms: list[float], load: float, frames: int) -> list[int]:
    """The rungs that serve so many frames under a constant load."""
    served = []
    for _ in range(frames):
        served.append(switch.rung)
        switch.observe(expected_ms[switch.rung] * load)
    return served


@given(rungs, targets)
def test_without_load_the_best_rung_within_the_target_serves_for_ever(expected_ms: list[float], target: float) -> None:
    switch = Switch(expected_ms, target)
    assert set(serve(switch, expected_ms, 1.0, 100)) == {best(expected_ms, target)}


@given(rungs, targets, loads)
def test_under_load_it_goes_down_within_few_frames_and_stays(
    expected_ms: list[float], target: float, load: float
) -> None:
    # In floating point, the ratio of a product is not always the factor.
    assume(all(abs(ms * load / target - 1) > 1e-9 for ms in expected_ms))
    switch = Switch(expected_ms, target)
    serve(switch, expected_ms, load, NOTICED)
    assert set(serve(switch, expected_ms, load, 200)) == {best(expected_ms, target, load)}
    assert switch.slowdown == pytest.approx(load)


@given(rungs, targets, loads)
def test_after_the_load_it_goes_up_again(expected_ms: list[float], target: float, load: float) -> None:
    switch = Switch(expected_ms, target)
    serve(switch, expected_ms, load, 50)
    serve(switch, expected_ms, 1.0, 2 * HOW.window)
    (rung,) = set(serve(switch, expected_ms, 1.0, 200))
    assert best(expected_ms, target * (1 - HOW.margin)) <= rung <= best(expected_ms, target)


@given(rungs, targets, st.floats(0.05, 1))
def test_on_a_faster_device_it_uses_what_it_can(expected_ms: list[float], target: float, factor: float) -> None:
    assume(all(abs(ms * factor / (target * keep) - 1) > 1e-9 for ms in expected_ms for keep in (1, 1 - HOW.margin)))
    switch = Switch(expected_ms, target)
    serve(switch, expected_ms, factor, 2 * HOW.window)
    (rung,) = set(serve(switch, expected_ms, factor, 200))
    assert best(expected_ms, target * (1 - HOW.margin), factor) <= rung <= best(expected_ms, target, factor)


@given(rungs, targets, st.lists(st.floats(1, 1000), min_size=1, max_size=NOTICED - 1))
def test_few_slow_frames_change_nothing(expected_ms: list[float], target: float, slow: list[float]) -> None:
    switch = Switch(expected_ms, target)
    before = switch.rung
    for load in slow:
        assert switch.observe(expected_ms[before] * load) == before


@given(rungs, targets, st.lists(st.floats(0.1, 30), min_size=1, max_size=400))
def test_any_load(expected_ms: list[float], target: float, ratios: list[float]) -> None:
    """There is always a rung; it goes up at most once in a window, and never to one that would miss the target."""
    switch = Switch(expected_ms, target)
    ups = []
    for frame, ratio in enumerate(ratios):
        before = switch.rung
        after = switch.observe(expected_ms[before] * ratio)
        assert 0 <= after < len(expected_ms)
        if after > before:
            ups.append(frame)
            assert expected_ms[after] * switch.slowdown <= target * (1 - HOW.margin)
        else:
            assert after in (before, best(expected_ms, target / switch.slowdown))
    assert all(later - earlier >= HOW.window for earlier, later in pairwise(ups))


@given(st.floats(1.2, 10), st.integers(0, 3))
def test_attempts_in_vain_become_rare(load: float, spare: int) -> None:
    """A load that slows only the better rung down: without memory, it would be tried after every window."""
    expected_ms = [10.0, 20.0]
    switch = Switch(expected_ms, 21.1 + spare / 10)
    served = []
    for _ in range(2000):
        served.append(switch.rung)
        switch.observe(expected_ms[switch.rung] * (load if switch.rung else 1.0))
    ups = sum(later > earlier for earlier, later in pairwise(served))
    assert 5 <= ups <= 2000 // (8 * HOW.window) + 4
    assert served.count(1) <= (ups + 1) * NOTICED


def test_after_attempts_in_vain_it_soon_follows_a_load_again() -> None:
    expected_ms = [10.0, 20.0]
    switch = Switch(expected_ms, 22.0)
    for _ in range(1000):
        switch.observe(expected_ms[switch.rung] * (3.0 if switch.rung else 1.0))
    serve(switch, expected_ms, 1.0, 9 * HOW.window)  # the longest wait, and an attempt that lasts
    serve(switch, expected_ms, 3.0, 50)
    assert switch.rung == 0
    serve(switch, expected_ms, 1.0, 2 * HOW.window)
    assert switch.rung == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"share": 0.0}, "share"), ({"share": 1.1}, "share"), ({"window": 0}, "window"), ({"margin": 1.0}, "margin")],
)
def test_wrong_settings_are_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Switching(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [0.0, -1.0, math.inf, math.nan])
def test_a_target_is_above_zero_and_finite(target: float) -> None:
    with pytest.raises(UsageError, match="target"):
        Switch([1.0], target)
