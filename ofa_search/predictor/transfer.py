"""Transfers a predictor of fp32 networks to networks in mixed precision, as APQ does (arXiv 2006.08509, section 3.2).

One linear layer for the bits is added to the first layer, h = f(architecture) + W bits, and all weights are taken over.
W is zero at the start, so the predictor of fp32 is the start: its accuracies, whatever the bits. Then all weights are
fine-tuned on a few hundred networks.

The predictor of fp32 is good already, the samples are few, and the accuracies on some thousand images are noisy. So
weights that are taken over move less than W, and cross-validation chooses the number of steps. If it does not find an
improvement of more than two standard errors, the predictor stays as it is: nothing is learned, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.genes import BITS
from ofa_search.predictor.features import Features
from ofa_search.predictor.fit import check_samples
from ofa_search.predictor.layers import Layer
from ofa_search.predictor.steps import BATCH, Adam, Matrix, batches, gradients

_LEARNING_RATE = 3e-4
#: The part of a step that weights make which are taken over.
_OLD_SHARE = 0.1
#: Cross-validation looks at the errors after so many steps.
_STEPS, _EVERY = 200, 10
_FOLDS = 5
#: An improvement is believed if it is larger than so many of its standard errors.
_SURE = 2.0

_Parameters = list[tuple[Matrix, Matrix]]


def with_bits(features: Features) -> Features:
    """The same features, and those of the bits."""
    return Features((*features.kinds, BITS), features.resolutions)


def bits_of(features: Features, space: SearchSpace) -> slice:
    """Where the features of the bits are: after those of all other genes, before the resolutions."""
    stop = features.count(space) - len(features.resolutions)
    return slice(stop - sum(len(gene.choices) for gene in space.genes if gene.kind == BITS), stop)


def add_bits(layers: Sequence[Layer], features: Features, space: SearchSpace) -> tuple[Layer, ...]:
    """Layers that take `features` -> layers that also take the bits of `space`, and do not use them.

    `space` is one of mixed precision. Its features are those of the plain space, the bits, and the resolutions.
    """
    first, added = layers[0], bits_of(with_bits(features), space)
    weight = np.insert(first.weight, [added.start] * (added.stop - added.start), np.float32(0), axis=0)
    return Layer(np.ascontiguousarray(weight), first.bias), *layers[1:]


def fine_tuned(
    layers: Sequence[Layer], inputs: Matrix, accuracies: ArrayLike, bits: slice, *, seed: int
) -> tuple[Layer, ...]:
    """Features (N, F), of which `bits` are those of the bits, and accuracies in [0, 1] (N,) -> layers.

    They are not far from `layers`, or are these. Raises `UsageError`.
    """
    targets = np.asarray(accuracies, dtype=np.float64)
    check_samples(inputs, targets, np.ones(len(inputs)))
    # In multiples of the deviation, as in `fit_layers`, on which the size of good steps depends.
    mean, scale = float(targets.mean()), max(float(targets.std()), 1e-6)
    *others, last = layers
    scaled = Layer(last.weight / np.float32(scale), ((last.bias - mean) / scale).astype(np.float32))
    tuning = _Tuning([*others, scaled], inputs, ((targets - mean) / scale).astype(np.float32), bits)
    rng = np.random.default_rng(seed)
    with threadpool_limits(1, user_api="blas"):  # as in `fit_layers`
        steps = tuning.number_of_steps(rng)
        if steps is None:
            return tuple(layers)
        path = tuning.path(np.arange(len(inputs)), rng)
        (*inner, (weight, bias)) = next(parameters for step, parameters in path if step == steps)
    ending = weight * np.float32(scale), (bias * scale + mean).astype(np.float32)
    return tuple(Layer(np.ascontiguousarray(weight), bias) for weight, bias in [*inner, ending])


@dataclass(frozen=True, eq=False)
class _Tuning:
    """The start and all samples of a fine-tuning. `targets` have mean 0 and deviation 1."""

    start: Sequence[Layer]
    inputs: Matrix
    targets: Matrix
    bits: slice

    def number_of_steps(self, rng: np.random.Generator) -> int | None:
        """The number with the smallest squared error on samples that were left out; None if no number is better
        than the start for sure."""
        untouched = (_outputs([(each.weight, each.bias) for each in self.start], self.inputs) - self.targets) ** 2
        gains = np.zeros((_STEPS // _EVERY + 1, len(self.inputs)))
        for fold in np.array_split(rng.permutation(len(self.inputs)), _FOLDS):
            rest = np.setdiff1d(np.arange(len(self.inputs)), fold)
            for step, parameters in self.path(rest, rng):
                errors = (_outputs(parameters, self.inputs[fold]) - self.targets[fold]) ** 2
                gains[step // _EVERY, fold] = untouched[fold] - errors
        best = int(gains.mean(axis=1).argmax())
        noise = gains[best].std() / np.sqrt(len(self.inputs))
        return best * _EVERY if gains[best].mean() > _SURE * noise else None

    def path(self, chosen: NDArray[np.intp], rng: np.random.Generator) -> Iterator[tuple[int, _Parameters]]:
        """Fine-tune on the chosen samples: the number of steps, and the parameters after them.

        The next steps will change these. Before the first step, the mean error is removed.
        """
        inputs, targets = self.inputs[chosen], self.targets[chosen]
        parameters = [(layer.weight.copy(), layer.bias.copy()) for layer in self.start]
        parameters[-1][1][:] += (targets - _outputs(parameters, inputs)).mean()
        shares = [np.full((len(array), *[1] * (array.ndim - 1)), _OLD_SHARE, np.float32) for array in _flat(parameters)]
        shares[0][self.bits] = 1
        adam = Adam(parameters)
        order = batches(rng, len(inputs), min(BATCH, len(inputs)))
        weights = np.ones(len(inputs), dtype=np.float32)
        yield 0, parameters
        for step in range(1, _STEPS + 1):
            some = next(order)
            adam.step(gradients(parameters, inputs[some], targets[some], weights[some]), _LEARNING_RATE, shares)
            if step % _EVERY == 0:
                yield step, parameters


def _flat(parameters: _Parameters) -> list[Matrix]:
    return [array for pair in parameters for array in pair]


def _outputs(parameters: _Parameters, inputs: Matrix) -> NDArray[np.float32]:
    values = inputs
    for number, (weight, bias) in enumerate(parameters):
        values = (np.maximum(values, 0) if number else values) @ weight + bias
    return values[:, 0]
