"""Compare latency models: `python benchmarks/calibration_models.py --out DIR [--cell NAME ...]`.

`DIR` is that of `calibration.py`. Each model is fitted to the networks of the calibration, and to these and half of the
fresh networks. Prints its error (MAPE) for the other half.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import numpy as np
from calibration_figures import head, line
from cells import Measured, add_cells, halves, read_cells
from numpy.typing import NDArray

from ofa_profiler import Architecture, get_space
from ofa_profiler.tables.corrections.regression import network_features, ridge
from ofa_profiler.verification import agreement

#: Features of networks (N, F), and the weights of the plain sum (F,).
Features = tuple[NDArray[np.float64], NDArray[np.float64]]
Model = Callable[[Measured, Sequence[Architecture]], Features]


def chosen(*columns: int) -> Model:
    """Some features of the regression: 0 ms, 1 ops, 2 boundary, 3 inside, 4 parameters, 5 constant."""

    def features(cell: Measured, networks: Sequence[Architecture]) -> Features:
        every = network_features(networks, lambda resolution, op: cell.table.latency_ms(op, resolution))
        return every[:, list(columns)], np.array([float(column == 0) for column in columns])

    return features


def ms_by(group_of: Callable[[str, str], str]) -> Model:
    """The sum of the milliseconds of each group of ops, and a constant. `group_of`: kind and key of an op."""

    def features(cell: Measured, networks: Sequence[Architecture]) -> Features:
        names = sorted({group_of(row.description.kind, row.op) for row in cell.table.rows})
        index = {name: i for i, name in enumerate(names)}
        sums = np.zeros((len(networks), len(names) + 1))
        sums[:, -1] = 1
        for total, network in zip(sums, networks, strict=True):
            for op in get_space(network.space).ops(network):
                total[index[group_of(op.kind, op.key)]] += cell.table.latency_ms(op, network.resolution)
        return sums, np.array([*[1.0] * len(names), 0.0])

    return features


def both(one: Model, other: Model) -> Model:
    """The features of two models; the plain sum is that of the second."""

    def features(cell: Measured, networks: Sequence[Architecture]) -> Features:
        (first, weights), (second, plain) = one(cell, networks), other(cell, networks)
        return np.hstack([first, second]), np.concatenate([0 * weights, plain])

    return features


REGRESSION = chosen(0, 1, 2, 3, 4, 5)
MODELS = {
    "one factor": chosen(0),
    "sum, constant": chosen(0, 5),
    "sum, ops, parameters": chosen(0, 1, 4),
    "sum, ops, boundary, parameters": chosen(0, 1, 2, 4),
    "regression": REGRESSION,
    "ms by kind": ms_by(lambda kind, _: kind),
    "regression, ms by kind": both(chosen(1, 2, 3, 4), ms_by(lambda kind, _: kind)),
    "every op its own factor": ms_by(lambda _, key: key),
    "regression, every op its own factor": both(chosen(1, 2, 3, 4), ms_by(lambda _, key: key)),
}


def error(cell: Measured, model: Model, more: int) -> float:
    """The MAPE for half of the fresh networks, after a fit to those of the calibration and `more` others."""
    half, test = halves(cell.fresh)
    seen = [*cell.fitted.architectures, *half.architectures[:more]]
    seen_ms = np.concatenate([cell.fitted.ms, half.ms[:more]])
    features, plain = model(cell, [*seen, *test.architectures])
    weights, _ = ridge(features[: len(seen)], seen_ms, plain)
    return agreement.mape(features[len(seen) :] @ weights, test.ms)


def main() -> int:
    """Print a column per cell."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    add_cells(parser)
    arguments = parser.parse_args()
    read = read_cells(arguments)
    cells = {cell: measured for cell, measured in read.items() if measured is not None}
    print(head("model", *(f"{cell.name}, {count} networks" for cell, m in cells.items() for count in counts(m))))
    for name, model in MODELS.items():
        errors = [error(m, model, count - len(m.fitted.ms)) for m in cells.values() for count in counts(m)]
        print(line(name, *(f"{value:.2%}" for value in errors)), flush=True)
    return 0 if cells else 1


def counts(measured: Measured) -> tuple[int, int]:
    """The numbers of networks of the two fits."""
    fitted = len(measured.fitted.ms)
    return fitted, fitted + len(halves(measured.fresh)[0].ms)


if __name__ == "__main__":
    sys.exit(main())
