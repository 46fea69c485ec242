"""The steps in which layers are fitted: gradients of the squared error, and Adam (arXiv 1412.6980)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

#: Samples per step.
BATCH = 64
_DECAYS = 0.9, 0.999  # of Adam's running means of the gradient and of its square


class Adam:
    """Changes parameters, weight (inputs, outputs) and bias (outputs,) of each layer. Weights decay, biases do not."""

    def __init__(self, parameters: Sequence[tuple[Matrix, Matrix]], weight_decay: float = 0.0) -> None:
        self._flat = [array for pair in parameters for array in pair]
        self._decay = weight_decay
        self._means, self._squares = ([np.zeros_like(array) for array in self._flat] for _ in range(2))
        self._step = 0

    def step(self, gradients: Sequence[Matrix], rate: float, shares: Sequence[Matrix] | None = None) -> None:
        """Make a step of size `rate`. `gradients` are in the order of the parameters; they are overwritten.

        Each parameter array makes its share of the step, if there are `shares`, which fit its shape.
        """
        self._step += 1
        # The correction of Adam's first means.
        rate *= math.sqrt(1 - _DECAYS[1] ** self._step) / (1 - _DECAYS[0] ** self._step)
        for number, (array, gradient) in enumerate(zip(self._flat, gradients, strict=True)):
            mean, square = self._means[number], self._squares[number]
            if array.ndim == 2 and self._decay:
                gradient += np.float32(self._decay) * array
            mean += np.float32(1 - _DECAYS[0]) * (gradient - mean)
            square += np.float32(1 - _DECAYS[1]) * (gradient * gradient - square)
            change = np.float32(rate) * mean / (np.sqrt(square) + np.float32(1e-8))
            array -= change if shares is None else shares[number] * change


def batches(rng: np.random.Generator, count: int, batch: int) -> Iterator[NDArray[np.intp]]:
    """Without end: `batch` samples at a time, all of them (but a last few) once before any comes again."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def gradients(
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
    found: list[Matrix] = []
    for number in range(len(parameters) - 1, -1, -1):
        found += [error.sum(axis=0), values[number].T @ error]
        if number:
            error = error @ parameters[number][0].T
            error *= values[number] > 0
    return found[::-1]
