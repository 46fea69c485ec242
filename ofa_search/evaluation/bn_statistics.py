"""Measures the table of BatchNorm statistics of a supernet (`ofa_search.supernet.bn_statistics`)."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
from torch import distributed

from ofa_profiler.base.progress import Reporter, report
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces import SearchSpace
from ofa_search.data.images import Images
from ofa_search.evaluation.subnets import CalibratedSubnets
from ofa_search.evaluation.world import World
from ofa_search.supernet.bn_statistics import StatisticsSum, StatisticsTable, covered, needed
from ofa_search.supernet.supernet import Supernet

#: Every entry of the table is averaged over at least this many subnets, and the table over at least this many.
ENOUGH, LEAST = 4, 300
_CANDIDATES = 12


def plan_subnets(space: SearchSpace, seed: int = 0, *, enough: int = ENOUGH, least: int = LEAST) -> list[Architecture]:
    """Select at least `least` subnets that together have each op at each resolution at least `enough` times.

    Of several random subnets, the one with the most entries that still need subnets is selected.
    """
    rng = np.random.default_rng(seed)
    counts: Counter[tuple[str, int]] = Counter(dict.fromkeys(_all_needed(space), 0))
    plan: list[Architecture] = []
    while len(plan) < least or min(counts.values()) < enough:
        candidates = [space.largest, space.smallest] if not plan else []
        candidates += space.decode(space.sample_genomes(rng, _CANDIDATES))
        parts = [covered(space.layout(candidate)) for candidate in candidates]
        best = int(np.argmax([sum(counts[part] < enough for part in each) for each in parts]))
        counts.update(parts[best])
        plan.append(candidates[best])
    return plan


def _all_needed(space: SearchSpace) -> set[tuple[str, int]]:
    parts: set[tuple[str, int]] = set()
    for slot in space.slots:
        for resolution in space.resolutions:
            choices = [
                (resolution,) if gene == space.resolution_gene else space.genes[gene].choices for gene in slot.genes
            ]
            for values in product(*choices):
                if (op := slot.build(*values)) is not None:
                    parts.update(needed(slot.name, op, resolution))
    return parts


def measure_statistics(
    supernet: Supernet,
    calibration: Images,
    world: World,
    plan: list[Architecture],
    progress: Reporter | None = None,
) -> StatisticsTable:
    """Recalibrate the subnets of `plan` with the images, and return the means of their statistics.

    The processes share the subnets, and all return the same table.

    `progress` counts subnets.
    """
    total = StatisticsSum()
    subnets = CalibratedSubnets(supernet, calibration)
    mine = plan[world.rank :: world.size]
    for number, architecture in enumerate(mine):
        report(progress, "calibrate", number * world.size, len(plan), words="BatchNorm statistics")
        total.add(supernet.space.layout(architecture), subnets.weights(architecture))
    if world.size > 1:
        parts: list[StatisticsSum] = [total] * world.size
        distributed.all_gather_object(parts, total)
        total = parts[0].merged(parts[1:])
    return total.table()
