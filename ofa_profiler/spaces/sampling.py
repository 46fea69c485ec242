"""Random architectures whose costs are spread evenly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import Cost
from ofa_profiler.spaces.mixed import MixedSpace

_POOL = 8192
#: Maximum tilt towards small or large choices. At 6, the largest choice is exp(6) times as likely as the smallest.
_MAX_TILT = 6.0


def draw_spread(
    space: SearchSpace,
    cost: Cost,
    count: int,
    rng: np.random.Generator,
    is_excluded: Callable[[Architecture], bool] | None = None,
    fewest: int | None = None,
) -> tuple[list[Architecture], NDArray[np.float64]]:
    """Draw `count` distinct architectures with evenly spread costs.

    Returns them and their costs (count,), in ascending order.

    If each choice were drawn uniformly, most architectures would have a medium cost, because a sum of many choices is
    rarely near its extremes. Tight and generous budgets are near the extremes. So each genome of a large pool has a
    random tilt towards small or large choices (the resolution is always uniform). The range of costs in the pool is
    divided into `count` bands of equal width. The architecture nearest to a random point of each band is selected.

    `is_excluded` tells which architectures must not be drawn.

    If fewer than `count` architectures of the pool have a finite cost and are not excluded, those are returned.
    Raises `UsageError` if they are not at least the `fewest` (default: `count`).
    """
    pool = np.unique(leaning_genomes(space, max(_POOL, 8 * count), rng), axis=0)
    costs = cost.evaluate(pool)
    pool, costs = pool[np.isfinite(costs)], costs[np.isfinite(costs)]
    lowest, width = (costs.min(), np.ptp(costs)) if len(costs) else (0.0, 0.0)
    points = lowest + width * (np.arange(count) + rng.random(count)) / count
    free = np.ones(len(pool), dtype=bool)
    chosen: list[int] = []
    for point in points:
        while free.any():
            nearest = int(np.where(free, np.abs(costs - point), np.inf).argmin())
            free[nearest] = False
            if is_excluded is None or not is_excluded(space.decode(pool[[nearest]])[0]):
                chosen.append(nearest)
                break
    if len(chosen) < (count if fewest is None else fewest):
        raise UsageError(f"space {space.name}: only {len(chosen)} of its networks can be used, {count} are needed")
    chosen = sorted(chosen, key=lambda index: (costs[index], index))
    return space.decode(pool[chosen]), costs[chosen]


def leaning_genomes(space: SearchSpace, count: int, rng: np.random.Generator) -> Genomes:
    """Draw canonical genomes (count, G) of small to large architectures.

    Choice i of n has the weight exp(tilt * i / (n - 1)), with one random tilt per genome. The resolution is uniform.
    Bits come in runs (`MixedSpace.draw_bits`).
    """
    tilt = rng.uniform(-_MAX_TILT, _MAX_TILT, size=(count, 1))
    columns = []
    for gene, n in enumerate(space.n_choices):
        if gene == space.resolution_gene:
            columns.append(rng.integers(0, n, size=(count, 1)))
            continue
        weights = np.cumsum(np.exp(tilt * np.linspace(0, 1, n)), axis=1)
        columns.append((rng.random((count, 1)) * weights[:, -1:] >= weights).sum(axis=1, keepdims=True))
    drawn = np.hstack(columns).astype(np.int8)
    if isinstance(space, MixedSpace):
        drawn[:, len(space.plain.genes) :] = space.draw_bits(rng, count)
    return space.canonical(drawn)
