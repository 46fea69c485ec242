"""The cost of a training in multiply-accumulates.

Training a network on an image costs three forward passes: the pass itself, the gradients of the inputs, and the
gradients of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces import SearchSpace
from ofa_search.training.schedule import Phase, Schedule

TRAINED, ASKED = 3, 1
#: Draws for an estimate of time, and for numbers that are compared.
FEW, MANY = 20, 300


def macs_per_image(space: SearchSpace, schedule: Schedule) -> float:
    """Multiply-accumulates per training image, on average over a schedule of a supernet."""
    return sum(phase.share * phase_macs(space, phase, MANY) for phase in schedule.phases)


def phase_macs(space: SearchSpace, phase: Phase, draws: int = FEW) -> float:
    """The same for one phase, estimated from `draws` steps drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    total = 0.0
    for _ in range(draws):
        resolution = int(rng.choice(phase.resolutions or space.resolutions))
        total += TRAINED * sum(_macs(space, a, resolution) for a in phase.subnets(space, rng))
        total += ASKED * _macs(space, space.largest, resolution) * (phase.teacher == "full")
    return total / draws


def _macs(space: SearchSpace, architecture: Architecture, resolution: int) -> float:
    """At any resolution, also one that the space does not have."""
    own = architecture.resolution
    return _own_macs(space, architecture) * (1.0 if own is None else (resolution / own) ** 2)


@lru_cache(1 << 12)
def _own_macs(space: SearchSpace, architecture: Architecture) -> int:
    return space.macs(architecture)


def part_done(schedule: Schedule, costs: Sequence[float], progress: float) -> float:
    """The fraction of the total cost that is done after the fraction `progress` of the steps.

    `costs`: the cost of a step of each phase, in any unit.
    """
    start = done = 0.0
    for phase, cost in zip(schedule.phases, costs, strict=True):
        done += min(max(progress - start, 0.0), phase.share) * cost
        start += phase.share
    return done / sum(phase.share * cost for phase, cost in zip(schedule.phases, costs, strict=True))
