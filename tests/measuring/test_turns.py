"""The order in which cells take turns, and how long a turn is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler.measuring.turns import Turns


def never() -> None:
    pass


def schedule(work: Mapping[str, Sequence[int]], visits: int = 30, check: Callable[[], None] = never) -> list[str]:
    """Cells with so many visits left in each stage -> whose turns there were: `a0x10` is stage 0, 10 visits."""
    turns, log = Turns(list(work)), []
    working = threading.Lock()

    def run(cell: str) -> None:
        with turns.member(cell, check):
            for stage, due in enumerate(work[cell]):
                left = due
                while left > 0:
                    count = turns.begin(cell, stage, visits, check)
                    assert working.acquire(blocking=False), "two cells work at the same time"
                    log.append(f"{cell}{stage}x{count}")
                    working.release()
                    left -= left if count is None else count
                    if left > 0:
                        turns.end(cell, check)

    threads = [threading.Thread(target=run, args=(cell,), daemon=True) for cell in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return log


def test_two_cells_alternate_and_a_slow_change_meets_both_alike():
    assert schedule({"a": [60], "b": [60]}) == ["a0x10", "b0x20", "a0x20", "b0x20", "a0x20", "b0x20", "a0xNone"]


def test_three_cells_go_back_and_forth():
    assert schedule({"a": [90], "b": [90], "c": [90]})[:7] == [
        "a0x10",
        "b0x10",
        "c0x20",
        "b0x10",
        "a0x20",
        "b0x10",
        "c0x20",
    ]


def test_networks_wait_for_the_ops_of_all():
    log = schedule({"a": [10, 30], "b": [50, 30]})
    stages = [turn[1] for turn in log]
    assert stages == sorted(stages)
    assert [turn for turn in log if turn[1] == "1"] == ["b1x10", "a1x20", "b1x20", "a1xNone"]


def test_the_last_one_needs_no_pauses():
    assert schedule({"a": [10], "b": [500]})[-1] == "b0xNone"


@given(
    st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 90), max_size=2), min_size=1),
    st.integers(1, 100),
)
def test_every_cell_comes_to_its_end(work, visits):
    log = schedule(work, visits)
    for cell, stages in work.items():
        for stage, due in enumerate(stages):
            found = [turn for turn in log if turn.startswith(f"{cell}{stage}")]
            assert bool(found) == (due > 0)


def test_a_cell_that_fails_does_not_stop_the_others():
    turns, done = Turns(["a", "b"]), []

    def fail() -> None:
        with turns.member("a", never):
            assert turns.begin("a", 0, 9, never) == 3
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with turns.member("b", never):
        assert turns.begin("b", 0, 9, never) is None
        done.append("b")
    assert done == ["b"]


def test_waiting_can_be_interrupted():
    turns = Turns(["a", "b"])

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), turns.member("b", stop):
        pytest.fail("it was not its turn")
