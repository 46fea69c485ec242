"""Which ops to measure on a new device: those that tell most about the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.networks.op import Op
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.sampling import leaning_genomes
from ofa_profiler.tables.transfer.features import op_features
from ofa_profiler.tables.transfer.process import Kernel

#: Networks that tell how often an op is used.
_NETWORKS = 300
#: An op that stands in none of them counts as much as one that stands in so many of all.
_FEWEST = 0.02
#: From this share of the ops on, their order does not matter.
_ORDERED_SHARE = 0.5


@dataclass(frozen=True)
class Order:
    """All ops of a space in the order in which they should be measured, of which the first `needed` must be."""

    ops: tuple[Op, ...]
    needed: int


def order_of_measuring(
    space: SearchSpace, base_ms: Mapping[str, float], classes: Mapping[str, Collection[str]]
) -> Order:
    """Order the ops of `space`, whose times on another device are `base_ms`, by what their measurement tells.

    First come ops without a time there, because nothing tells theirs. Then one op of each kind and each class
    (`classes`: op -> its classes). Each further op is the one that reduces the posterior variance of all ops most,
    weighted by how often an op stands in a random network. This depends on the features alone, not on measured times.
    """
    ops = space.unique_ops()
    unknown = [op for op in ops if op.key not in base_ms]
    known = [op for op in ops if op.key in base_ms]
    if not known:
        return Order(ops, len(ops))
    features = op_features(known, [base_ms[op.key] for op in known])
    labels = [{op.kind, *classes.get(op.key, ())} for op in known]
    chosen, needed = _greedy(features, _use(space, known), labels)
    rest = [i for i in range(len(known)) if i not in set(chosen)]
    return Order((*unknown, *(known[i] for i in (*chosen, *rest))), len(unknown) + needed)


def _greedy(
    features: NDArray[np.float64], weights: NDArray[np.float64], labels: Sequence[set[str]]
) -> tuple[list[int], int]:
    """The positions of ops (N, F) in the order of choice, and how many of them cover all labels."""
    kernel = Kernel()
    covariance = kernel(features, features)
    chosen: list[int] = []
    missing = set().union(*labels)
    needed = 0
    while missing or len(chosen) < _ORDERED_SHARE * len(features):
        # What a measurement of an op would take off the variance of each other op, summed up (conditioning on it).
        gains = (weights @ covariance**2) / (np.diag(covariance) + kernel.noise)
        gains[chosen] = -1.0
        if missing:
            gains[[i for i, label in enumerate(labels) if not label & missing]] = -1.0
        best = int(gains.argmax())
        chosen.append(best)
        column = covariance[:, best].copy()
        covariance -= np.outer(column, column) / (column[best] + kernel.noise)
        if missing:
            missing -= labels[best]
            needed = len(chosen)
    return chosen, needed


def _use(space: SearchSpace, ops: Sequence[Op]) -> NDArray[np.float64]:
    """The share of random networks in which each op stands (N,)."""
    counts = dict.fromkeys((op.key for op in ops), 0)
    for architecture in space.decode(leaning_genomes(space, _NETWORKS, np.random.default_rng(0))):
        for op in space.ops(architecture):
            if op.key in counts:
                counts[op.key] += 1
    return np.array([max(_FEWEST, count / _NETWORKS) for count in counts.values()])
