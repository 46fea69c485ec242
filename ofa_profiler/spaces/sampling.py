"""Random architectures that are spread over the range of their cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces import Genomes, SearchSpace
from ofa_profiler.spaces.costs import Cost

_POOL = 8192
#: How far a genome may lean towards small or large choices: the largest weighs exp(6) times the smallest.
_MAX_TILT = 6.0


def draw_spread(
    space: SearchSpace, cost: Cost, count: int, rng: np.random.Generator
) -> tuple[list[Architecture], NDArray[np.float64]]:
    """`count` distinct random architectures whose `cost` is spread evenly, lowest first, and these costs.

    If every choice is drawn evenly, most architectures have a medium cost: a sum of many choices is rarely near its
    ends, where tight and generous budgets are. Here each genome of a large pool leans towards small or towards large
    choices to a random degree (the resolution is always drawn evenly). The range of the costs of the pool is divided
    into `count` bands of equal width, and the architecture nearest to a random point of each band is taken.

    Raises `UsageError` when fewer than `count` of the pool have a finite cost.
    """
    pool = np.unique(leaning_genomes(space, max(_POOL, 8 * count), rng), axis=0)
    costs = cost.evaluate(pool)
    pool, costs = pool[np.isfinite(costs)], costs[np.isfinite(costs)]
    if len(pool) < count:
        raise UsageError(f"only {len(pool)} of the drawn architectures of {space.name} can be used; {count} are needed")
    points = costs.min() + np.ptp(costs) * (np.arange(count) + rng.random(count)) / count
    free = np.ones(len(pool), dtype=bool)
    for point in points:
        free[np.where(free, np.abs(costs - point), np.inf).argmin()] = False
    chosen = np.flatnonzero(~free)
    chosen = chosen[np.argsort(costs[chosen], kind="stable")]
    return space.decode(pool[chosen]), costs[chosen]


def leaning_genomes(space: SearchSpace, count: int, rng: np.random.Generator) -> Genomes:
    """Canonical genomes (count, G), of small to large architectures.

    Choice i of n has the weight exp(tilt * i / (n - 1)), one tilt per genome; the resolution is drawn evenly.
    """
    tilt = rng.uniform(-_MAX_TILT, _MAX_TILT, size=(count, 1))
    columns = []
    for gene, n in enumerate(space.n_choices):
        if gene == space.resolution_gene:
            columns.append(rng.integers(0, n, size=(count, 1)))
            continue
        weights = np.cumsum(np.exp(tilt * np.linspace(0, 1, n)), axis=1)
        columns.append((rng.random((count, 1)) * weights[:, -1:] >= weights).sum(axis=1, keepdims=True))
    return space.canonical(np.hstack(columns).astype(np.int8))
