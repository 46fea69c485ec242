"""A correction that is fitted to measured networks: a linear model of sums over their ops.

Ops in a network differ from ops alone in three ways. Each has a feature that is a sum over ops (`docs/accuracy.md`):

- An isolated op has the cost of a run of its own: the number of ops.
- It may convert the layout of its input and output, and in a network it may not: the sizes of the tensors at its
  boundary, and of those inside.
- It finds its weights in the caches, and in a network it does not: the number of parameters.

So the time of a network is a constant, plus a sum of one number per op, like the plain sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.values import number
from ofa_profiler.spaces import SearchSpace, get_space
from ofa_profiler.spaces.costs import AdditiveCost
from ofa_profiler.tables.corrections.base import Correction, OpMs
from ofa_profiler.tables.corrections.intervals import interval_factors

#: The features of an op: its time alone, 1, and in millions the elements of its inputs and outputs, the elements of
#: the tensors between its layers, and its parameters.
FEATURES = ("ms", "ops", "boundary", "inside", "parameters")
#: A network has one more feature, which is always 1.
CONSTANT = "constant"
#: The strengths of the ridge that a fit tries, relative to the number of networks.
_STRENGTHS = np.logspace(-9, 0, 28)


def op_features(op: Op, milliseconds: float) -> tuple[float, ...]:
    """The `FEATURES` of an op that takes so many milliseconds alone."""
    return milliseconds, 1.0, op.boundary / 1e6, op.inside / 1e6, op.params / 1e6


@dataclass(frozen=True)
class Regression(Correction):
    """`constant` plus the sum over ops of coefficients times features: milliseconds per unit of each feature."""

    method: ClassVar[str] = "regression"
    coefficients: Mapping[str, float]
    constant: float
    #: The names of the networks that it was fitted to.
    networks: tuple[str, ...] = ()
    #: The mean error for a network that the fit leaves out, as a fraction; None if unknown.
    left_out_mape: float | None = None
    #: abs(measured - predicted) / measured of networks that were not used for their prediction. Intervals follow.
    held_out_errors: tuple[float, ...] = ()
    #: The number of these errors per network.
    errors_each: int = 1

    def __post_init__(self) -> None:
        values, named = self.coefficients, self.networks
        if not isinstance(values, Mapping) or values.keys() != set(FEATURES):
            raise UsageError(f"'correction': 'coefficients' must be an object with {', '.join(FEATURES)}")
        mape = 0.0 if self.left_out_mape is None else self.left_out_mape
        if not all(number(value) is not None for value in (*values.values(), self.constant, mape)):
            raise UsageError("'correction': 'coefficients', 'constant' and 'left_out_mape' must be finite numbers")
        if not isinstance(named, list | tuple) or not all(isinstance(name, str) for name in named):
            raise UsageError("'correction': 'networks' must be a list of names")
        errors = self.held_out_errors
        if not isinstance(errors, list | tuple) or not all(_is_error(error) for error in errors):
            raise UsageError("'correction': 'held_out_errors' must be a list of numbers, none below 0")
        if not isinstance(self.errors_each, int) or self.errors_each < 1:
            raise UsageError("'correction': 'errors_each' must be a number from 1 on")
        object.__setattr__(self, "networks", tuple(named))
        object.__setattr__(self, "held_out_errors", tuple(errors))

    def cost(self, space: SearchSpace, op_ms: OpMs) -> AdditiveCost:
        def corrected_ms(resolution: int | None, op: Op) -> float:
            milliseconds = op_ms(resolution, op)
            return self.op_ms(op, milliseconds) if math.isfinite(milliseconds) else math.inf

        return AdditiveCost.from_ops_by_resolution(space, corrected_ms).affine(1.0, self.constant)

    def op_ms(self, op: Op, milliseconds: float) -> float:
        """The milliseconds of an op as part of a network, from its time alone. Can be negative."""
        features = zip(FEATURES, op_features(op, milliseconds), strict=True)
        return sum(self.coefficients[name] * value for name, value in features)

    def interval_factors(self, level: float) -> tuple[float, float] | None:
        return interval_factors(self.held_out_errors, level, self.errors_each)

    def to_json(self) -> dict[str, Any]:
        fitted = {"constant": self.constant, "networks": list(self.networks), "left_out_mape": self.left_out_mape}
        errors = {"held_out_errors": list(self.held_out_errors), "errors_each": self.errors_each}
        return {"method": self.method, "coefficients": dict(self.coefficients), **fitted, **errors}


def _is_error(value: Any) -> bool:
    found = number(value)
    return found is not None and found >= 0


def network_features(architectures: Iterable[Architecture], op_ms: OpMs) -> NDArray[np.float64]:
    """Architectures -> the sums of their `FEATURES`, and 1 for the constant (N, F + 1)."""
    rows = []
    for architecture in architectures:
        ops = get_space(architecture.space).ops(architecture)
        features = [op_features(op, op_ms(architecture.resolution, op)) for op in ops]
        rows.append([*np.sum(features, axis=0), 1.0])
    return np.array(rows).reshape(-1, len(FEATURES) + 1)


def fit_regression(
    architectures: Sequence[Architecture], measured_ms: Sequence[float], op_ms: OpMs, names: Sequence[str] = ()
) -> Regression:
    """Fit a regression to measured networks, called `names`."""
    weights, errors = ridge(network_features(architectures, op_ms), np.asarray(measured_ms, dtype=float))
    left_out = tuple(float(error) for error in np.abs(errors))
    coefficients = {name: float(value) for name, value in zip(FEATURES, weights, strict=False)}
    return Regression(coefficients, float(weights[-1]), tuple(names), float(np.mean(left_out)), left_out)


def ridge(
    features: NDArray[np.float64], measured: NDArray[np.float64], plain: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features (N, F + 1) and milliseconds (N,) -> the weights of the features, and the left-out errors (N,).

    A left-out error is (measured - predicted) / measured of a network that is predicted by a fit to the others.

    It minimises the relative errors, by ridge regression towards the weights `plain` (default: the plain sum). The
    strength of the ridge is the one with the smallest error when each network is predicted by a fit to the others
    (leave-one-out, in closed form).
    """
    relative = features / measured[:, np.newaxis]
    if plain is None:
        plain = np.zeros(relative.shape[1])
        plain[FEATURES.index("ms")] = 1.0
    scale = np.maximum(np.abs(relative).mean(axis=0), 1e-12)
    left, singular, right = np.linalg.svd(relative / scale, full_matrices=False)
    residual = 1.0 - relative @ plain
    best_error, best, left_out = math.inf, plain, residual
    for strength in _STRENGTHS:
        shrunk = singular / (singular**2 + strength * len(measured))
        hat = (left * (singular * shrunk)) @ left.T
        errors = (residual - hat @ residual) / np.maximum(1.0 - np.diag(hat), 1e-9)
        error = float(np.mean(errors**2))
        if error < best_error:
            best_error, left_out = error, errors
            best = plain + right.T @ (shrunk * (left.T @ residual)) / scale
    return best, left_out
