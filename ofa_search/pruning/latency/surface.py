"""The time of a slot between the points that were measured.

A time is about a sum of products of its units: work, and bytes that are read and written. These terms have coefficients
of at least 0, so the sum does not fall when units are added. Processors compute channels in vectors, so the time is a
staircase: of several widths of steps, the one that explains all slots best is used. What the terms leave is a factor,
which is interpolated between measured points; at a measured point it is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

#: Widths of steps in channels that are tried.
STEPS = (1, 4, 8, 16, 32)
_MOST_ITERATIONS = 200

Points = Mapping[tuple[int, ...], float]


@dataclass(frozen=True, eq=False)
class Surface:
    """Units of the groups of a slot -> milliseconds. `unit_channels` are the channels of one unit of each group."""

    unit_channels: tuple[int, ...]
    step: int
    #: Measured units (N, groups) and their times (N,).
    units: NDArray[np.float64]
    ms: NDArray[np.float64]
    weights: NDArray[np.float64]

    @staticmethod
    def fitted(points: Points, unit_channels: Sequence[int], step: int) -> Surface:
        """The surface through measured points."""
        units = np.array(list(points), dtype=float).reshape(len(points), -1)
        ms = np.array(list(points.values()))
        empty = Surface(tuple(unit_channels), step, units, ms, np.empty(0))
        relative = empty._terms(units) / ms[:, np.newaxis]
        return Surface(tuple(unit_channels), step, units, ms, nonnegative(relative, np.ones(len(ms))))

    def at(self, units: NDArray[np.float64]) -> NDArray[np.float64]:
        """Units (M, groups) -> milliseconds (M,)."""
        fitted: NDArray[np.float64] = self._terms(units) @ self.weights
        there = self._terms(self.units) @ self.weights
        scale = np.maximum(self.units.max(axis=0), 1.0)
        far = np.square((units[:, np.newaxis] - self.units[np.newaxis]) / scale).sum(axis=2)
        near = 1.0 / np.maximum(far, 1e-12) ** 2
        factor = (near @ np.log(self.ms / there)) / near.sum(axis=1)
        is_measured = far.min(axis=1) < 1e-12
        found: NDArray[np.float64] = np.where(is_measured, self.ms[far.argmin(axis=1)], fitted * np.exp(factor))
        return found

    def errors(self) -> NDArray[np.float64]:
        """The relative errors of the terms alone at the measured points."""
        found: NDArray[np.float64] = self._terms(self.units) @ self.weights / self.ms - 1.0
        return found

    def _terms(self, units: NDArray[np.float64]) -> NDArray[np.float64]:
        """1, each channel count, and products of two, relative to the most that was measured."""
        channels = units * np.array(self.unit_channels, dtype=float)
        most = np.maximum((self.units * np.array(self.unit_channels, dtype=float)).max(axis=0), 1.0)
        stepped = np.ceil(channels / self.step) * self.step / most
        n_groups = units.shape[1]
        pairs = combinations_with_replacement if n_groups == 1 else combinations
        products = [stepped[:, i] * stepped[:, j] for i, j in pairs(range(n_groups), 2)]
        return np.column_stack([np.ones(len(units)), *stepped.T, *products])


def best_step(slots: Sequence[tuple[Points, Sequence[int]]]) -> int:
    """The width of steps with the smallest errors over all slots: (points, channels of a unit of each group)."""

    def error(step: int) -> float:
        errors = [Surface.fitted(points, channels, step).errors() for points, channels in slots if points]
        return float(np.mean(np.square(np.concatenate(errors)))) if errors else 0.0

    return min(STEPS, key=error)


def nonnegative(matrix: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least squares solution without negative coefficients (Lawson and Hanson, 1974)."""
    found = np.zeros(matrix.shape[1])
    active = np.zeros(matrix.shape[1], dtype=bool)
    for _ in range(_MOST_ITERATIONS):
        gradient = matrix.T @ (target - matrix @ found)
        gradient[active] = -np.inf
        best = int(gradient.argmax())
        if gradient[best] <= 1e-10 * np.abs(matrix).sum():
            break
        active[best] = True
        while True:
            trial = np.zeros(len(found))
            trial[active] = np.linalg.lstsq(matrix[:, active], target, rcond=None)[0]
            falls = active & (trial <= 0)
            if not falls.any():
                found = trial
                break
            ratio = np.min(found[falls] / np.maximum(found[falls] - trial[falls], 1e-300))
            found = found + ratio * (trial - found)
            active &= found > 1e-14
            found[~active] = 0.0
    return found
