"""Print how right calibrated tables are: `python benchmarks/calibration_figures.py --out DIR [--cell PATTERN ...]`.

`DIR` is that of `calibration.py`. Prints the error for random networks and for those that a search found, the coverage
of the intervals, the error of a fit to other spaces, and the error against the device time. Cells that were not
measured are listed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Mapping

import numpy as np
from cells import Cell, Measured, Networks, add_cells, halves, read_cells, session_times
from numpy.typing import NDArray

from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.tables.corrections.regression import network_features, ridge
from ofa_profiler.verification import agreement
from ofa_profiler.verification.calibrate import plain_sum
from ofa_profiler.verification.networks import network_name

WITHIN = ("within 1%", "2% or 2x noise", "3% or 3x noise")
#: The points of the curve: rounds of ops, networks of the fit, and rounds of networks.
_OP_ROUNDS, _NETWORKS, _NETWORK_ROUNDS = (1, 2, 3, 5, 10), (10, 16, 24, 32, 64), (3, 6, 12)


def line(*values: str) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(values)} |"


def head(*names: str) -> str:
    """The first two rows of a table in Markdown."""
    return f"{line(*names)}\n{line(*('---' for _ in names))}"


def errors_of(measured: Measured, networks: Networks) -> tuple[str, ...]:
    """MAPE, fractions within 1%, within 2% (or twice the noise), within 3% (or three times), bias, rank correlation."""
    predicted_ms = measured.table.predict_ms(networks.architectures)
    limits = (0.01, max(0.02, 2 * networks.noise), max(0.03, 3 * networks.noise))
    return (
        f"{agreement.mape(predicted_ms, networks.ms):.2%}",
        *(f"{agreement.within(predicted_ms, networks.ms, limit):.0%}" for limit in limits),
        f"{agreement.bias(predicted_ms, networks.ms):+.2%}",
        f"{agreement.spearman(predicted_ms, networks.ms):.4f}",
    )


def print_errors(cells: Mapping[Cell, Measured]) -> None:
    """Random networks."""
    names = ("plain sum: MAPE", "noise", "MAPE", *WITHIN, "bias", "Spearman", "drift", "minutes")
    print(head("table", *names))
    for cell, measured in cells.items():
        plain_ms = plain_sum(measured.table).predict_ms(measured.fresh.architectures)
        minutes = (measured.ops.used_s + measured.networks.used_s) / 60
        ends = (f"{agreement.mape(plain_ms, measured.fresh.ms):.1%}", f"{measured.fresh.noise:.2%}")
        print(
            line(cell.name, *ends, *errors_of(measured, measured.fresh), f"{measured.drift - 1:+.2%}", f"{minutes:.1f}")
        )


def print_found(cells: Mapping[Cell, Measured]) -> None:
    """Networks that a search found."""
    print("\n" + head("table", "found", "noise", "MAPE", *WITHIN, "bias", "Spearman"))
    for cell, measured in cells.items():
        found = measured.found
        print(line(cell.name, str(len(found.ms)), f"{found.noise:.2%}", *errors_of(measured, found)))


def print_coverage(cells: Mapping[Cell, Measured]) -> None:
    """How many random networks are inside their interval of 95%, with and without the drift between sessions."""
    print("\n" + head("table", "interval", "inside", "inside, drift included"))
    total = np.zeros(3)
    for cell, measured in cells.items():
        predicted_ms, (low, high) = measured.table.predict_ms(measured.fresh.architectures, interval=0.95)
        inside = [(low <= ms) & (ms <= high) for ms in (measured.fresh.ms, measured.fresh.ms * measured.drift)]
        total += [len(predicted_ms), *(part.sum() for part in inside)]
        width = f"{low[0] / predicted_ms[0] - 1:+.1%} to {high[0] / predicted_ms[0] - 1:+.1%}"
        print(line(cell.name, width, *(f"{part.mean():.0%}" for part in inside)))
    print(line(f"all {total[0]:.0f} networks", "", *(f"{part / total[0]:.1%}" for part in total[1:])))


def features_of(cell: Measured, networks: Networks, medians: Mapping[str, float] | None = None) -> NDArray[np.float64]:
    """The features of networks (N, F + 1), with other times of the ops, if given."""

    def op_ms(resolution: int | None, op: Op) -> float:
        return cell.table.latency_ms(op, resolution) if medians is None else medians[op.key]

    return network_features(networks.architectures, op_ms)


def print_families(cells: Mapping[Cell, Measured]) -> None:
    """A correction that is fitted to the other spaces of a runtime and number of threads."""
    print("\n" + head("table", "fitted to", "MAPE", "bias", "own fit: MAPE"))
    known = [(cell, measured) for cell, measured in cells.items() if cell.batch == 1]
    for cell, own in known:
        others = [
            (other.space, measured)
            for other, measured in known
            if other.space != cell.space and (other.runtime, other.threads) == (cell.runtime, cell.threads)
        ]
        if not others:
            continue
        features = np.vstack([features_of(measured, measured.fitted) for _, measured in others])
        weights, _ = ridge(features, np.concatenate([measured.fitted.ms for _, measured in others]))
        predicted_ms = features_of(own, own.fresh) @ weights
        errors = (agreement.mape(predicted_ms, own.fresh.ms), agreement.bias(predicted_ms, own.fresh.ms))
        own_ms = own.table.predict_ms(own.fresh.architectures)
        names = ", ".join(space for space, _ in others)
        print(
            line(
                cell.name, names, f"{errors[0]:.2%}", f"{errors[1]:+.2%}", f"{agreement.mape(own_ms, own.fresh.ms):.2%}"
            )
        )


def op_medians(replay: Replay, rounds: int) -> tuple[dict[str, float], float]:
    """Medians of all samples by op after so many rounds, and the seconds until then."""
    used_s, medians = 0.0, {}
    for key, visits in replay.visits.items():
        samples = [np.asarray(visit.samples_ns) for visit in visits[:rounds]]
        medians[key] = float(np.median(np.concatenate(samples))) / 1e6
        used_s += sum(visit.seconds for visit in visits[:rounds])
    return medians, used_s


def curve_of(cell: Measured) -> Iterator[tuple[float, float, str]]:
    """Seconds of the device, error, and what was measured.

    Half of the fresh networks gives the error; the other half extends the fit.
    """
    more, test = halves(cell.fresh)
    for op_rounds in _OP_ROUNDS:
        medians, ops_s = op_medians(cell.ops, op_rounds)
        fit, extra, unseen = (features_of(cell, some, medians) for some in (cell.fitted, more, test))
        for count, rounds in itertools.product(_NETWORKS, _NETWORK_ROUNDS):
            times = session_times(cell.networks, rounds)
            names = [network_name(a) for a in cell.fitted.architectures]
            ms = np.array([times[name].ms for name in names])
            visits = [visit for name in names for visit in cell.networks.visits[name][:rounds]]
            used_s = sum(visit.seconds for visit in visits) / len(names) * count
            chosen = np.linspace(0, len(ms) - 1, min(count, len(ms))).astype(int)
            features, target = fit[chosen], ms[chosen]
            if count > len(ms):
                features = np.vstack([fit, extra[: count - len(ms)]])
                target = np.concatenate([ms, more.ms[: count - len(ms)]])
            weights, _ = ridge(features, target)
            error = agreement.mape(unseen @ weights, test.ms)
            yield ops_s + used_s, error, f"{op_rounds} rounds of ops, {count} networks, {rounds} rounds"


def print_curve(cells: Mapping[Cell, Measured]) -> None:
    """The best error within each time."""
    print("\n" + head("table", "seconds (validation apart)", "MAPE", "measured"))
    for cell, measured in cells.items():
        best = np.inf
        for seconds, error, what in sorted(curve_of(measured)):
            if error < 0.97 * best:
                best = error
                print(line(cell.name, f"{seconds:.0f}", f"{error:.2%}", what))


def main() -> int:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    add_cells(parser)
    arguments = parser.parse_args()
    read = read_cells(arguments)
    cells = {cell: measured for cell, measured in read.items() if measured is not None}
    for print_some in (print_errors, print_found, print_coverage, print_families, print_curve):
        print_some(cells)
    print("\n".join(f"not measured: {cell.name}" for cell in read if cell not in cells))
    return 0 if cells else 1


if __name__ == "__main__":
    sys.exit(main())
