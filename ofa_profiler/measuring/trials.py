"""The trials of forms that a device is asked for: each form of each group of layers, on a few ops."""

from __future__ import annotations

from collections.abc import Iterable

from ofa_profiler.export.forms.base import candidates
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.forms import Forms, Trial
from ofa_profiler.protocol.target import Target


def trials_of(ops: Iterable[Op], target: Target, *, joint: bool = False) -> tuple[Trial, ...]:
    """A trial per form of each group in `ops`: on the ops with the fewest, the median and the most MACs.

    `joint`: one trial of the first form of all groups together, so that the device chooses all or none.
    """
    members: dict[tuple[str, str], list[Op]] = {}
    for op in ops:
        for group, names in candidates(target, op.graph).items():
            for name in names:
                members.setdefault((group, name), []).append(op)
    if joint and members:
        first: dict[str, str] = {}
        for group, name in members:
            first.setdefault(group, name)
        keys = {op.key: None for pair in first.items() for op in _representatives(members[pair])}
        return (Trial(Forms(first), tuple(keys)),)
    return tuple(
        Trial(Forms({group: name}), tuple(op.key for op in _representatives(found)))
        for (group, name), found in members.items()
    )


def _representatives(ops: list[Op]) -> list[Op]:
    ordered = sorted(ops, key=lambda op: (op.macs, op.key))
    return list(dict.fromkeys([ordered[0], ordered[len(ordered) // 2], ordered[-1]]))
