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
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ofa_profiler.errors import UsageError
from ofa_search.predictor.layers import Layer

Matrix = NDArray[np.float32]

_BATCH = 64
_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 1e-2
#: As many steps as are enough for few samples, and as many epochs as are enough for many.
_MIN_STEPS, _MIN_EPOCHS = 1200, 40
_DECAYS = 0.9, 0.999  # of Adam's running means of the gradient and of its square
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
    _check(inputs, targets, weights, hidden)
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


def _check(
    inputs: Matrix, accuracies: NDArray[np.float64], weights: NDArray[np.float64], hidden: Sequence[int]
) -> None:
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
    if not all(1 <= width <= 10_000 for width in hidden):
        raise UsageError(f"hidden layers of {list(hidden)} units; a layer has 1 to 10000")


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
    batch = min(_BATCH, len(inputs))
    steps = max(_MIN_STEPS, _MIN_EPOCHS * math.ceil(len(inputs) / batch))
    flat = [array for pair in parameters for array in pair]
    means, squares = ([np.zeros_like(array) for array in flat] for _ in range(2))
    order = _batches(rng, len(inputs), batch)
    for step in range(1, steps + 1):
        chosen = next(order)
        gradients = _gradients(parameters, inputs[chosen], targets[chosen], weights[chosen])
        # From the full step down to none along a cosine, with Adam's correction of its first means.
        rate = _LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        rate *= math.sqrt(1 - _DECAYS[1] ** step) / (1 - _DECAYS[0] ** step)
        for array, gradient, mean, square in zip(flat, gradients, means, squares, strict=True):
            if array.ndim == 2:
                gradient += np.float32(_WEIGHT_DECAY) * array
            mean += np.float32(1 - _DECAYS[0]) * (gradient - mean)
            square += np.float32(1 - _DECAYS[1]) * (gradient * gradient - square)
            array -= np.float32(rate) * mean / (np.sqrt(square) + np.float32(1e-8))


def _batches(rng: np.random.Generator, count: int, batch: int) -> Iterator[NDArray[np.intp]]:
    """Without end: `batch` samples at a time, all of them (but a last few) once before any comes again."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def _gradients(
    parameters: Sequence[tuple[Matrix, Matrix]], inputs: Matrix, targets: Matrix, weights: Matrix
) -> list[Matrix]:
    """Of the mean squared error, by weight and bias of each layer, first to last."""
    values = [inputs]
    for number, (weight, bias) in enumerate(parameters):
        out = values[-1] @ weight
        out += bias
        if number < len(parameters) - 1:
            np.maximum(out, 0, out=out)
        values.append(out)
    error = (2 / len(inputs) * weights * (values[-1][:, 0] - targets))[:, None].astype(np.float32)
    gradients: list[Matrix] = []
    for number in range(len(parameters) - 1, -1, -1):
        gradients += [error.sum(axis=0), values[number].T @ error]
        if number:
            error = error @ parameters[number][0].T
            error *= values[number] > 0
    return gradients[::-1]
