"""Gaussian processes (Rasmussen, Williams, "Gaussian Processes for Machine Learning", 2006, chapters 2 and 5).

The values of similar points are similar. From the values of some points follow the values of all others, each with a
standard deviation. Few values do not tell which kernel is right, so the predictions of several are averaged.
scikit-learn has Gaussian processes too, but with its dependencies it weighs 190 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: The variance of a common offset of all values. It is large: nothing is known about it.
_OFFSET = 25.0
#: The kernels that are averaged; all but the lengths are variances.
_LINEAR, _SMOOTH, _LENGTH = (0.0003, 0.003, 0.03), (0.001, 0.01, 0.1), (0.5, 1.0, 2.0)
_NOISE = (0.01**2, 0.03**2, 0.06**2)
#: Kernels that are this much less likely than the likeliest one do not count.
_UNLIKELY = 1e-3


@dataclass(frozen=True)
class Kernel:
    """The covariance of two values: a common offset, a linear trend, and what is similar for similar points.

    `linear` and `smooth` are variances. `length` is the distance, per root of the number of features, within which
    points are similar. `noise` is the variance of single values.
    """

    linear: float = 0.003
    smooth: float = 0.03
    length: float = 1.0
    noise: float = 0.02**2

    def __call__(self, one: Array, other: Array) -> Array:
        """Points (N, F) and (M, F) -> the covariances of their values without noise (N, M)."""
        inner = one @ other.T
        squares = (one**2).sum(axis=1)[:, np.newaxis] + (other**2).sum(axis=1) - 2 * inner
        distances = np.maximum(squares, 0.0) / one.shape[1]
        result: Array = _OFFSET + self.linear * inner + self.smooth * np.exp(-0.5 * distances / self.length**2)
        return result

    def variances(self, points: Array) -> Array:
        """Points (N, F) -> the variances of their values without noise (N,)."""
        result: Array = _OFFSET + self.linear * (points**2).sum(axis=1) + self.smooth
        return result


def kernels() -> Iterator[Kernel]:
    """The kernels that `fit` averages."""
    for linear, smooth, length, noise in product(_LINEAR, _SMOOTH, _LENGTH, _NOISE):
        yield Kernel(linear, smooth, length, noise)


@dataclass(frozen=True, eq=False)
class Process:
    """A Gaussian process that knows the values (K,) of `points` (K, F)."""

    kernel: Kernel
    points: Array
    values: Array

    def _inverse(self) -> Array:
        covariance = self.kernel(self.points, self.points)
        return np.asarray(np.linalg.inv(covariance + self.kernel.noise * np.eye(len(self.points))), dtype=np.float64)

    def log_likelihood(self) -> float:
        """The logarithm of the marginal likelihood of the values, without its constant (equation 2.30)."""
        covariance = self.kernel(self.points, self.points) + self.kernel.noise * np.eye(len(self.points))
        lower = np.linalg.cholesky(covariance)
        whitened = np.linalg.solve(lower, self.values)
        return float(-0.5 * whitened @ whitened - np.log(np.diag(lower)).sum())

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Points (N, F) -> the means and standard deviations of their values with noise, (N,) each."""
        shared = self.kernel(self.points, points)
        weights = self._inverse() @ shared
        variance = self.kernel.variances(points) - (shared * weights).sum(axis=0) + self.kernel.noise
        return weights.T @ self.values, np.sqrt(np.maximum(variance, self.kernel.noise))

    def left_out(self) -> tuple[Array, Array]:
        """The error of each value if it is predicted from the others, and its standard deviation (equation 5.12)."""
        inverse = self._inverse()
        diagonal = np.diag(inverse)
        return (inverse @ self.values) / diagonal, 1 / np.sqrt(diagonal)


@dataclass(frozen=True, eq=False)
class Mixture:
    """Processes with different kernels that know the same values, each with the probability (K,) of its kernel."""

    processes: tuple[Process, ...]
    probabilities: Array

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Points (N, F) -> the means and standard deviations of their values with noise, (N,) each."""
        return self._mixed([process.predict(points) for process in self.processes])

    def left_out(self) -> tuple[Array, Array]:
        """The error of each value if it is predicted from the others, and its standard deviation."""
        return self._mixed([process.left_out() for process in self.processes])

    def _mixed(self, found: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
        """The mean and standard deviation of a mixture of normal distributions."""
        means, deviations = (np.array(part) for part in zip(*found, strict=True))
        mean = self.probabilities @ means
        return mean, np.sqrt(self.probabilities @ (deviations**2 + (means - mean) ** 2))


def fit(points: Array, values: Array) -> Mixture:
    """The processes that know these values, by their marginal likelihoods."""
    processes = [Process(kernel, points, values) for kernel in kernels()]
    logs = np.array([process.log_likelihood() for process in processes])
    likelihoods = np.exp(logs - logs.max())
    kept = likelihoods > _UNLIKELY
    chosen = tuple(process for process, is_kept in zip(processes, kept, strict=True) if is_kept)
    return Mixture(chosen, likelihoods[kept] / likelihoods[kept].sum())
