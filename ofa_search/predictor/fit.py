"""Fits the layers of an accuracy predictor to samples, in numpy.

Adam (arXiv 1412.6980) on the squared error, with weight decay, as the OFA authors do, but on accuracies
that are scaled to mean 0 and deviation 1; the scale becomes part of the last layer at the end. Their step
of 1e-3 and decay of 1e-4 suit ten thousand samples and more. With a few hundred samples, the step and the
decay below give a better order. They were chosen on a made-up formula and on the predictions of the
published predictor; neither is critical.

scikit-learn's `MLPRegressor` has no decaying step. On 560 noisy predictions of the published predictor it
takes several times as long, and its error is not smaller at its best weight decay either (RMSE 0.256
points, here 0.251; Kendall tau 0.878, here 0.876).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ofa_profiler.errors import UsageError
from ofa_search.predictor.layers import Layer
from ofa_search.predictor.steps import BATCH, Adam, Matrix, batches, gradients

_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 1e-2
#: As many steps as are enough for few samples, and as many epochs as are enough for many.
_MIN_STEPS, _MIN_EPOCHS = 1200, 40
MIN_SAMPLES = 10


def fit_layers(
    inputs: Matrix,
    accuracies: ArrayLike,
    *,
    seed: int,
    hidden: Sequence[int],
    sample_weight: ArrayLike | None = None,
) -> tuple[Layer, ...]:
    """Features (N, F) and accuracies in [0, 1] (N,) -> layers; see `AccuracyPredictor.fit`."""
    targets = np.asarray(accuracies, dtype=np.float64)
    weights = np.ones(len(inputs)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    check_samples(inputs, targets, weights)
    if not all(1 <= width <= 10_000 for width in hidden):
        raise UsageError(f"hidden layers of {list(hidden)} units; a layer has 1 to 10000")
    weights = weights / weights.mean()
    mean = np.average(targets, weights=weights)
    scale = math.sqrt(np.average((targets - mean) ** 2, weights=weights))
    if scale > 1e-9:
        targets = (targets - mean) / scale
    else:  # there is nothing to learn but the one accuracy
        targets, scale = np.zeros_like(targets), 0.0

    rng = np.random.default_rng(seed)
    parameters = _initial(rng, (inputs.shape[1], *hidden, 1))
    # With more threads, sums would be taken in another order on another machine, and here it is no faster.
    with threadpool_limits(1, user_api="blas"):
        _train(parameters, inputs, targets.astype(np.float32), weights.astype(np.float32), rng)
    *others, (weight, bias) = parameters
    last = weight * np.float32(scale), (bias * scale + mean).astype(np.float32)
    return tuple(Layer(np.ascontiguousarray(weight), bias) for weight, bias in [*others, last])


def check_samples(inputs: Matrix, accuracies: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
    """Raise `UsageError` unless these are enough inputs (N, F), accuracies (N,) in [0, 1] and weights (N,)."""
    count = len(inputs)
    if count < MIN_SAMPLES:
        raise UsageError(f"{count} samples are too few for an accuracy predictor; a few hundred are enough")
    for what, values in (("accuracies", accuracies), ("sample weights", weights)):
        if values.shape != (count,):
            raise UsageError(f"{count} architectures but {what} of shape {values.shape}")
    outside = np.flatnonzero(~((accuracies >= 0) & (accuracies <= 1)))
    if outside.size:
        raise UsageError(f"accuracy {accuracies[outside[0]]} of sample {outside[0]} is not in [0, 1]")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise UsageError("sample weights must be numbers of 0 or more, and not all 0")


def _initial(rng: np.random.Generator, sizes: Sequence[int]) -> list[tuple[Matrix, Matrix]]:
    """Uniform weights that keep the variance from layer to layer (He et al., arXiv 1502.01852)."""
    parameters = []
    for inputs, outputs in pairwise(sizes):
        bound = math.sqrt(6 / inputs)
        weight = rng.uniform(-bound, bound, (inputs, outputs)).astype(np.float32)
        parameters.append((weight, np.zeros(outputs, dtype=np.float32)))
    # Predictions start close to the mean, not far from it in a random direction.
    parameters[-1] = (parameters[-1][0] * np.float32(0.1), parameters[-1][1])
    return parameters


def _train(
    parameters: Sequence[tuple[Matrix, Matrix]],
    inputs: Matrix,
    targets: Matrix,
    weights: Matrix,
    rng: np.random.Generator,
) -> None:
    """Change the parameters, step by step."""
    batch = min(BATCH, len(inputs))
    steps = max(_MIN_STEPS, _MIN_EPOCHS * math.ceil(len(inputs) / batch))
    adam = Adam(parameters, weight_decay=_WEIGHT_DECAY)
    order = batches(rng, len(inputs), batch)
    for step in range(1, steps + 1):
        chosen = next(order)
        # From the full step down to none along a cosine.
        rate = _LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        adam.step(gradients(parameters, inputs[chosen], targets[chosen], weights[chosen]), rate)
