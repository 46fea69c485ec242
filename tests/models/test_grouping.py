"""Where networks are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler.errors import UsageError
from ofa_profiler.models.base import Kernel
from ofa_profiler.models.grouping import CALLS, MOST_BLOCKS, group_kernels, groups_between

kernels = st.lists(
    st.builds(
        Kernel,
        st.just("k"),
        st.sampled_from(["Conv", "Add"]),
        st.integers(0, 10**9),
        st.integers(0, 10**8),
        st.integers(0, 10**8),
    ),
    min_size=1,
    max_size=60,
)


@given(kernels, st.floats(0.01, 20), st.sets(st.integers(0, 60)))
def test_blocks_are_consecutive_long_enough_and_keep_what_is_joined(listed, call_us, joined):
    groups = group_kernels(listed, call_us, joined=joined)
    assert [position for group in groups for position in group] == list(range(len(listed)))
    times = [sum(listed[position].estimated_us for position in group) for group in groups]
    total = sum(kernel.estimated_us for kernel in listed)
    least = max(CALLS * call_us, total / MOST_BLOCKS)
    assert len(groups) == 1 or min(times) >= least
    assert len(groups) <= MOST_BLOCKS
    assert not {group[0] for group in groups[1:]} & joined


@given(kernels)
def test_a_network_shorter_than_a_block_is_one(listed):
    total = sum(kernel.estimated_us for kernel in listed)
    assert len(group_kernels(listed, total)) == 1


def test_the_same_cut_of_another_network():
    names = ["a", "b", "a", "", "c", "d"]
    assert groups_between(names, ["b", "a", "end"], ()) == [(0, 1), (2,), (3, 4, 5)]
    assert groups_between(names, ["b", "a", "end"], {3, 4}) == [(0, 1), (2, 3, 4), (5,)]
    with pytest.raises(UsageError, match="no kernel 'b' after 1 blocks"):
        groups_between(names, ["c", "b", "end"], ())
    with pytest.raises(UsageError, match="cannot be cut into these blocks"):
        groups_between(names, ["d", "end"], ())
