"""Ops as vectors: similar ops are near each other, and their times change by similar factors between devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.networks.op import Op, Scalar

#: Every value of these attributes is a feature of its own, because a runtime has other kernels for it.
_CHOICES = ("kernel_size", "stride", "skip", "se", "activation")
#: How far apart ops with two values of a choice are, in standard deviations of a size.
_DISTANCE = 2.0


def op_features(ops: Sequence[Op], base_ms: Sequence[float]) -> NDArray[np.float64]:
    """N ops and their times on another device -> features (N, F).

    Sizes are logarithms with mean 0 and standard deviation 1. A choice has one feature per value, 0 or `_DISTANCE`.
    """
    sizes = np.log([_sizes(op, milliseconds) for op, milliseconds in zip(ops, base_ms, strict=True)])
    sizes = (sizes - sizes.mean(axis=0)) / np.maximum(sizes.std(axis=0), 1e-9)
    columns: list[list[float]] = []
    for values in _choices(ops):
        distinct = list(dict.fromkeys(values))
        if len(distinct) > 1:
            columns += [[_DISTANCE * (value == one) for value in values] for one in distinct]
    return np.hstack([sizes, np.array(columns, dtype=float).reshape(len(columns), len(ops)).T])


def _choices(ops: Sequence[Op]) -> Iterator[list[Scalar | None]]:
    yield [op.kind for op in ops]
    for name in _CHOICES:
        yield [op.attributes.get(name) for op in ops]


def _sizes(op: Op, milliseconds: float) -> list[float]:
    middle = op.attributes.get("mid_channels")
    counts = (
        op.macs,
        op.boundary,
        op.inside,
        op.params,
        op.input_shape[0],
        op.input_shape[-1],
        middle if isinstance(middle, int) else 1,
    )
    return [milliseconds, *(max(1.0, float(count)) for count in counts)]
