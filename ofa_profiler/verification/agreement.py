"""How well predictions agree with what was measured."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def relative_errors(predicted: ArrayLike, measured: ArrayLike) -> NDArray[np.float64]:
    """|predicted - measured| / measured, element by element. `measured` must be above zero."""
    predicted, measured = np.asarray(predicted, dtype=float), np.asarray(measured, dtype=float)
    errors: NDArray[np.float64] = np.abs(predicted - measured) / measured
    return errors


def mape(predicted: ArrayLike, measured: ArrayLike) -> float:
    """Mean absolute percentage error, as a fraction: 0.05 is 5%. NaN for nothing."""
    errors = relative_errors(predicted, measured)
    return float(errors.mean()) if errors.size else math.nan


def within(predicted: ArrayLike, measured: ArrayLike, tolerance: float) -> float:
    """The fraction of predictions that are at most `tolerance` (0.05 is 5%) off. NaN for nothing."""
    errors = relative_errors(predicted, measured)
    return float((errors <= tolerance).mean()) if errors.size else math.nan


def bias(predicted: ArrayLike, measured: ArrayLike) -> float:
    """Mean of (predicted - measured) / measured: below 0 the predictions are too low. NaN for nothing."""
    predicted, measured = np.asarray(predicted, dtype=float), np.asarray(measured, dtype=float)
    return float((predicted / measured - 1).mean()) if measured.size else math.nan


def ratio(predicted: ArrayLike, measured: ArrayLike) -> float:
    """Geometric mean of predicted / measured: below 1 the predictions are too low. NaN for nothing."""
    logs = np.log(np.asarray(predicted, dtype=float)) - np.log(np.asarray(measured, dtype=float))
    return float(np.exp(logs.mean())) if logs.size else math.nan


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 1, equal values sharing the mean of theirs: [5, 7, 7] -> [1, 2.5, 2.5]."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return shared


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation in [-1, 1]; NaN when either side does not vary (Spearman, 1904)."""
    a, b = ranks(first), ranks(second)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(np.clip(a @ b / norm, -1.0, 1.0)) if norm > 0 else math.nan


def kendall_tau(first: ArrayLike, second: ArrayLike) -> float:
    """Kendall's rank correlation in [-1, 1], ties counted as in tau-b; NaN when either side does not vary.

    Of all pairs, those in the same order minus those in opposite order (Kendall, 1945). Quadratic in time,
    not in memory.
    """
    a, b = ranks(first), ranks(second)
    agreeing = in_a = in_b = 0.0
    for i in range(1, len(a)):
        sign_a, sign_b = np.sign(a[i:] - a[:-i]), np.sign(b[i:] - b[:-i])  # all pairs that are i apart
        agreeing += float(sign_a @ sign_b)
        in_a += float(sign_a @ sign_a)
        in_b += float(sign_b @ sign_b)
    norm = math.sqrt(in_a * in_b)
    return float(np.clip(agreeing / norm, -1.0, 1.0)) if norm > 0 else math.nan
