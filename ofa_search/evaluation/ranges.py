"""Measures the ranges of the tensors of subnets, for int8 (`ofa_profiler.networks.ranges`).

A range hardly depends on the choices that a network makes elsewhere, because BatchNorm normalises the branches: for
`cifar-mbv3` its width has a standard deviation of 4% over random subnets. Therefore one table, with the mean range of
each tensor of the supernet, fits all subnets (`benchmarks/int8_accuracy.py` measures how well).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import distributed

from ofa_profiler.base.progress import Reporter, report
from ofa_profiler.export.calibration import calibrate
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.blocks import as_graph
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.networks.ranges import TABLE, Ranges
from ofa_profiler.networks.tensors import Span
from ofa_profiler.spaces import SearchSpace
from ofa_search.data.batches import prepare
from ofa_search.data.images import Images
from ofa_search.evaluation.world import World

#: How ranges are found, and on how many images.
METHOD, RANGE_IMAGES = "percentile", 128
_BATCH = 64
#: Random subnets for a table, beside the smallest and the largest one, which has all tensors.
RANDOM = 22

Sums = dict[str, tuple[int, float, float]]


def measure_ranges(space: SearchSpace, architecture: Architecture, weights: Weights, images: Images) -> Ranges:
    """The ranges of one subnet, on the first `RANGE_IMAGES` of these images."""
    few = images.take(slice(0, RANGE_IMAGES))
    batches = [
        prepare(pixels, architecture.resolution, space.preprocessing).cpu().numpy() for pixels, _ in few.batches(_BATCH)
    ]
    return calibrate(as_graph(space.layout(architecture)), weights, lambda: batches, method=METHOD)


def plan_range_subnets(space: SearchSpace, seed: int = 0, *, count: int = RANDOM) -> list[Architecture]:
    """The subnets for a table. They are always the same."""
    rng = np.random.default_rng(seed)
    return [space.largest, space.smallest, *space.decode(space.sample_genomes(rng, count))]


def about_range_table(plan: Sequence[Architecture]) -> dict[str, Any]:
    """What the description of a supernet says about its table."""
    return {"subnets": len(plan), "images": RANGE_IMAGES, "method": METHOD}


def measure_range_table(
    space: SearchSpace,
    weights_of: Callable[[Architecture], Weights],
    images: Images,
    world: World,
    plan: Sequence[Architecture],
    progress: Reporter | None = None,
) -> Ranges:
    """The mean ranges of the subnets of `plan`, which must have all tensors of the space.

    The processes share the subnets, and all return the same table. `progress` counts subnets.
    """
    sums: Sums = {}
    for number, architecture in enumerate(plan[world.rank :: world.size]):
        report(progress, "calibrate", number * world.size, len(plan), words="ranges of int8")
        found = measure_ranges(space, architecture, weights_of(architecture), images)
        _add(sums, {name: (1, *span) for name, span in found.spans.items()})
    if world.size > 1:
        parts: list[Sums] = [sums] * world.size
        distributed.all_gather_object(parts, sums)
        sums = {}
        for part in parts:
            _add(sums, part)
    return Ranges({name: Span(low / count, high / count) for name, (count, low, high) in sorted(sums.items())}, TABLE)


def _add(sums: Sums, others: Sums) -> None:
    for name, (count, low, high) in others.items():
        known = sums.get(name, (0, 0.0, 0.0))
        sums[name] = known[0] + count, known[1] + low, known[2] + high
