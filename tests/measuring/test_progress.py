"""The progress of a measurement: visits are its unit, and the time left does not jump."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from support.records import DEVICE, END, REQUEST, RUN, visit

from ofa_profiler.measuring.progress import Estimator
from ofa_profiler.protocol.records import Run, read_record
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings

SETTINGS = Settings(min_rounds=3, max_rounds=10, target_half_width=0.02, time_limit_s=None)


def test_visits_are_counted_from_the_first_on() -> None:
    estimator, replay = Estimator(SETTINGS), Replay(REQUEST)
    replay.add(read_record(DEVICE))
    start = estimator.progress(replay)
    assert (start.done, start.left_s, start.words) == (0, None, "0 of 2 finished")
    assert start.total is not None
    assert 6 < start.total < 20
    done = []
    for number in range(3):
        for key in "ab":
            replay.add(read_record({**visit(key, number, [5]), "half_width": 0.01 if number else None}))
            done.append(estimator.progress(replay))
    assert [progress.done for progress in done] == [1, 2, 3, 4, 5, 6]
    assert (done[-1].done, done[-1].total, done[-1].left_s) == (6, 6, 0)
    assert done[-1].words == "2 of 2 finished"


def test_the_estimate_follows_the_width_of_the_interval() -> None:
    replay = Replay(REQUEST)
    replay.add(read_record(DEVICE))
    for number in range(3):
        replay.add(read_record({**visit("a", number, [5]), "half_width": 0.06}))
        replay.add(read_record({**visit("b", number, [5]), "half_width": 0.01}))
    # Three times too wide after three rounds: the root of their number and the t quantile shrink it.
    now = Estimator(SETTINGS).progress(replay)
    needed = next(
        n for n in range(4, 11) if 0.06 * (3 / n) ** 0.5 * {7: 2.447, 8: 2.365, 9: 2.306}.get(n, 9) / 4.303 <= 0.02
    )
    assert now.total == 6 + needed - 3
    assert now.left_s == pytest.approx((needed - 3) * 0.1)
    assert (now.finished, now.models) == (1, 2)


def test_a_measurement_that_the_time_limit_ended_is_done() -> None:
    replay = Replay(REQUEST)
    for record in (
        DEVICE,
        visit("a", 0, [5]),
        visit("b", 0, [5]),
        {**END, "cut_short": ["a", "b"], "time_limit_s": 1.0},
    ):
        replay.add(read_record(record))
    now = Estimator(replace(SETTINGS, time_limit_s=1.0)).progress(replay)
    assert (now.done, now.total, now.left_s, now.finished) == (2, 2, 0, 2)
    longer = Estimator(replace(SETTINGS, time_limit_s=2.0)).progress(replay)
    assert longer.total is not None
    assert longer.total > 2


@pytest.mark.parametrize("seed", range(3))
def test_networks_of_very_different_latency_in_any_order(seed: int) -> None:
    """A few networks take most of the time. Predicted latencies tell which ones."""
    rng = random.Random(seed)
    latency_ms = {f"n{i}": 0.5 * 1.2**i for i in range(30)}
    run = Run.from_json({**RUN, "models": dict.fromkeys(latency_ms, "00")})
    settings = replace(SETTINGS, min_rounds=4, max_rounds=8, visit_s=0.2, target_half_width=0.02)
    replay = Replay(run)
    replay.add(read_record(DEVICE))
    visits = []
    for number in range(4):
        order = list(latency_ms)
        rng.shuffle(order)
        visits += [(key, number) for key in order]
    seconds = {key: 0.008 + 6 * ms / 1e3 + max(0.2, 7 * ms / 1e3) for key, ms in latency_ms.items()}  # as measured
    total_s = sum(seconds[key] for key, _ in visits)
    estimator = Estimator(settings, {key: 0.8 * ms for key, ms in latency_ms.items()})
    ends = []
    for key, number in visits:
        samples = [round(latency_ms[key] * 1e6)] * 7
        record = {**visit(key, number, samples), "seconds": seconds[key], "half_width": 0.01 if number else None}
        replay.add(read_record(record))
        left_s = estimator.progress(replay).left_s
        assert left_s is not None
        ends.append(replay.used_s + left_s)
    assert max(ends) < 1.5 * total_s
    assert min(ends[3:]) > total_s / 1.5
    steps = [abs(after - before) for before, after in itertools.pairwise(ends[3:])]
    assert max(steps) < 0.1 * total_s
