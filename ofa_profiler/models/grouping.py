"""Where a network is cut: runs of kernels that are long enough to be measured alone.

Every call of a runtime costs some microseconds, whatever it runs: blocks of single small kernels would add up to more
than the network. And a small block that is run again and again finds its data in the nearest cache: many of them add up
to less. So a block collects kernels until its estimated time is at least `CALLS` calls and a `MOST_BLOCKS`th of the
network. The estimate follows from work and traffic alone, so that the same file gives the same blocks everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ofa_profiler.errors import UsageError
from ofa_profiler.models.base import Kernel

#: Least time of a block, in calls of the runtime: the calls then add at most 5% to the sum.
CALLS = 20.0
#: No network has many more blocks. Nobody reads more, either.
MOST_BLOCKS = 100


def group_kernels(
    kernels: Sequence[Kernel], call_us: float, *, joined: Collection[int] = ()
) -> tuple[tuple[int, ...], ...]:
    """Consecutive kernels, by their positions, as blocks of at least `CALLS` calls, if the network has that much.

    `call_us` is what one call of the runtime costs. Kernels at the positions `joined` stay with the kernel before them.
    """
    times = [kernel.estimated_us for kernel in kernels]
    least = max(CALLS * call_us, sum(times) / MOST_BLOCKS)
    groups: list[list[int]] = []
    current: list[int] = []
    total = 0.0
    for position, time_us in enumerate(times):
        if current and total >= least and position not in joined:
            groups.append(current)
            current, total = [], 0.0
        current.append(position)
        total += time_us
    if groups and total < least:
        groups[-1] += current
    elif current:
        groups.append(current)
    return tuple(map(tuple, groups))


def groups_between(names: Sequence[str], ends: Sequence[str], joined: Collection[int]) -> list[tuple[int, ...]]:
    """The positions of kernels as groups that end with the kernels of these names; the rest is in the last group.

    Kernels at the positions `joined` stay with the kernel before them. Raises `UsageError` if there is no such cut.
    """
    groups: list[tuple[int, ...]] = []
    start = 0
    for end in ends[:-1]:
        if end not in names[start:]:
            raise UsageError(f"the network has no kernel {end!r:.80} after {len(groups)} blocks")
        stop = names.index(end, start) + 1
        while stop in joined:
            stop += 1
        groups.append(tuple(range(start, stop)))
        start = stop
    groups.append(tuple(range(start, len(names))))
    if not all(groups):
        raise UsageError("the network cannot be cut into these blocks")
    return groups
