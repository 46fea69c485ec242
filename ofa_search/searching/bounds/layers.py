"""The layers of a network, and linear bounds through them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ofa_search.predictor.relu_network import ReluNetwork
from ofa_search.searching.bounds.elimination import Array, Indices
from ofa_search.searching.bounds.parts import Linear, Lines, Part


class Layers:
    """The layers of a network in float64: pairs of a weight (inputs, outputs) and a bias (outputs,)."""

    def __init__(self, network: ReluNetwork) -> None:
        self.network = network
        self.layers = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in network.layers]

    def back(self, rows: Array, constants: Array, lines: Sequence[Lines], parts: int) -> tuple[Linear, list[Array]]:
        """Upper bounds of `rows @ relu(…) + constants`, rows (R, H), and the coefficients on the way (M, R, H)."""
        values = np.broadcast_to(rows, (parts, *rows.shape))
        constant = np.broadcast_to(constants, (parts, len(constants)))
        weights: list[Array] = []
        for number in reversed(range(len(lines))):
            line, (weight, bias) = lines[number], self.layers[number]
            weights.insert(0, values)
            positive, negative = np.maximum(values, 0), np.minimum(values, 0)
            constant = constant + (positive @ line.shift[:, :, np.newaxis])[:, :, 0]
            values = positive * line.up[:, np.newaxis] + negative * line.low[:, np.newaxis]
            constant = constant + values @ bias
            values = values @ weight.T
        return Linear(values, constant), weights

    def score(self, lines: Sequence[Lines], parts: int) -> tuple[Linear, list[Array]]:
        """Upper bounds of the score, one per part, and its coefficients on the way."""
        weight, bias = self.layers[-1]
        return self.back(weight.T, bias, lines, parts)

    def by_slope(self, ones: Array, lines: Sequence[Lines], weights: Sequence[Array]) -> list[Array]:
        """The derivatives of the bounds by the slopes (M, H), at the networks where they are highest."""
        gradients, values = [], ones
        for (weight, bias), line, own in zip(self.layers, lines, weights, strict=False):
            inputs = values @ weight + bias
            coefficients = own[:, 0]
            gradients.append(np.where((coefficients < 0) & line.crossing, coefficients * inputs, 0.0))
            values = np.where(coefficients > 0, line.up * inputs + line.shift, line.low * inputs)
        return gradients

    def rounding(self, part: Part, starts: Indices) -> float:
        """How much a score that is computed in float32 can be above that of the exact network, in this part.

        Each sum of n products has a relative error of at most n units of rounding, whatever the order.
        """
        unit = float(np.finfo(np.float32).eps) / 2
        active = len(self.network.space.genes)
        sizes = np.zeros(0)
        errors = np.zeros(0)
        for number, (weight, bias) in enumerate(self.layers):
            absolute = np.abs(weight)
            if number:
                errors = errors @ absolute + (len(weight) + 2) * unit * (sizes @ absolute + np.abs(bias))
            else:
                sums = np.maximum.reduceat(absolute, starts[:-1], axis=0).sum(axis=0)
                errors = (active + 2) * unit * (sums + np.abs(bias))
            if number < len(part.intervals):
                sizes = np.maximum(part.intervals[number][1], 0.0)
        return float(errors[0])
