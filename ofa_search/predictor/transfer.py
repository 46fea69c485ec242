"""Transfers a predictor of fp32 networks to networks in mixed precision, as APQ does (arXiv 2006.08509, section 3.2).

One linear layer for the bits is added to the first layer, h = f(architecture) + W bits, and all weights are taken over.
W is zero at the start, so the predictor of fp32 is the start: its accuracies, whatever the bits. Then all weights are
fine-tuned on a few hundred networks.

The predictor of fp32 is good already, and the samples are few and noisy. So the steps are small, and cross-validation
chooses their number. It can be 0: then nothing is learned, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.genes import BITS
from ofa_search.predictor.features import Features
from ofa_search.predictor.fit import check_samples
from ofa_search.predictor.layers import Layer
from ofa_search.predictor.steps import BATCH, Adam, Matrix, batches, gradients

_LEARNING_RATE = 1e-4
#: Cross-validation looks at the errors after so many steps.
_STEPS, _EVERY = 300, 10
_FOLDS = 5

_Parameters = list[tuple[Matrix, Matrix]]


def with_bits(features: Features) -> Features:
    """The same features, and those of the bits."""
    return Features((*features.kinds, BITS), features.resolutions)


def add_bits(layers: Sequence[Layer], features: Features, space: SearchSpace) -> tuple[Layer, ...]:
    """Layers that take `features` -> layers that also take the bits of `space`, and do not use them.

    `space` is one of mixed precision. Its features are those of the plain space, the bits, and the resolutions.
    """
    first = layers[0]
    before = len(first.weight) - len(features.resolutions)
    count = with_bits(features).count(space) - len(first.weight)
    weight = np.insert(first.weight, [before] * count, np.float32(0), axis=0)
    return Layer(np.ascontiguousarray(weight), first.bias), *layers[1:]


def fine_tuned(layers: Sequence[Layer], inputs: Matrix, accuracies: ArrayLike, *, seed: int) -> tuple[Layer, ...]:
    """Features (N, F) and accuracies in [0, 1] (N,) -> layers, not far from `layers`. Raises `UsageError`."""
    targets = np.asarray(accuracies, dtype=np.float64)
    check_samples(inputs, targets, np.ones(len(inputs)))
    # In multiples of the deviation, as in `fit_layers`, on which the size of good steps depends.
    mean, scale = float(targets.mean()), max(float(targets.std()), 1e-6)
    *others, last = layers
    start = Layer(last.weight / np.float32(scale), ((last.bias - mean) / scale).astype(np.float32))
    standard = ((targets - mean) / scale).astype(np.float32)
    rng = np.random.default_rng(seed)
    with threadpool_limits(1, user_api="blas"):  # as in `fit_layers`
        steps = _number_of_steps([*others, start], inputs, standard, rng)
        if steps == 0:
            return tuple(layers)
        path = _path([*others, start], inputs, standard, rng)
        (*inner, (weight, bias)) = next(parameters for step, parameters in path if step == steps)
    ending = weight * np.float32(scale), (bias * scale + mean).astype(np.float32)
    return tuple(Layer(np.ascontiguousarray(weight), bias) for weight, bias in [*inner, ending])


def _number_of_steps(layers: Sequence[Layer], inputs: Matrix, targets: Matrix, rng: np.random.Generator) -> int:
    """The number of steps with the smallest squared error on samples that were left out."""
    errors = np.zeros(_STEPS // _EVERY + 1)
    for fold in np.array_split(rng.permutation(len(inputs)), _FOLDS):
        rest = np.setdiff1d(np.arange(len(inputs)), fold)
        for step, parameters in _path(layers, inputs[rest], targets[rest], rng):
            errors[step // _EVERY] += float(((_outputs(parameters, inputs[fold]) - targets[fold]) ** 2).sum())
    return int(errors.argmin()) * _EVERY


def _path(
    layers: Sequence[Layer], inputs: Matrix, targets: Matrix, rng: np.random.Generator
) -> Iterator[tuple[int, _Parameters]]:
    """The number of steps, and the parameters after them, which the next steps will change."""
    parameters = [(layer.weight.copy(), layer.bias.copy()) for layer in layers]
    adam = Adam(parameters)
    order = batches(rng, len(inputs), min(BATCH, len(inputs)))
    weights = np.ones(len(inputs), dtype=np.float32)
    yield 0, parameters
    for step in range(1, _STEPS + 1):
        chosen = next(order)
        adam.step(gradients(parameters, inputs[chosen], targets[chosen], weights[chosen]), _LEARNING_RATE)
        if step % _EVERY == 0:
            yield step, parameters


def _outputs(parameters: _Parameters, inputs: Matrix) -> NDArray[np.float32]:
    values = inputs
    for number, (weight, bias) in enumerate(parameters):
        values = (np.maximum(values, 0) if number else values) @ weight + bias
    return values[:, 0]
