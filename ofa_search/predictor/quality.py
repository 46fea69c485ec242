"""How good an accuracy predictor is, on architectures that it was not fitted to."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from ofa_profiler.verification.agreement import kendall_tau, spearman


@dataclass(frozen=True)
class Metrics:
    """`rmse` in points (1 point is 1% of accuracy); a rank correlation is NaN where nothing varies."""

    rmse: float
    kendall_tau: float
    spearman: float
    samples: int

    def to_json(self) -> dict[str, float | None]:
        """Plain JSON types; null for NaN."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


def metrics(predicted: ArrayLike, measured: ArrayLike) -> Metrics:
    """Compare accuracies in [0, 1], (N,) each, N at least 1."""
    predicted, measured = np.asarray(predicted, dtype=float), np.asarray(measured, dtype=float)
    squares = (predicted - measured) ** 2
    return Metrics(
        rmse=100 * math.sqrt(squares.mean()),
        kendall_tau=kendall_tau(predicted, measured),
        spearman=spearman(predicted, measured),
        samples=squares.size,
    )


def pairwise_accuracy(predicted: ArrayLike, measured: ArrayLike) -> float:
    """The share of pairs whose order is predicted (as in APQ, arXiv 2006.08509), in [0, 1]; NaN if there are none.

    Pairs that measure the same do not count; a pair that is predicted to be equal counts half.
    """
    predicted, measured = np.asarray(predicted, dtype=float), np.asarray(measured, dtype=float)
    first, second = np.triu_indices(measured.size, 1)
    ours, theirs = np.sign(predicted[first] - predicted[second]), np.sign(measured[first] - measured[second])
    counts = theirs != 0
    return float((1 + ours * theirs)[counts].mean() / 2) if counts.any() else math.nan
