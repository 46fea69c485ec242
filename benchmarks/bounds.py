"""Measures how tight the bounds of searches are, after several times.

    python benchmarks/bounds.py --lut board.csv --budget 0.5ms [--predictor PATH|macs] [--seconds 0.2,10,60]

For each budget, the default engine searches. Then the bound of its result gets tighter, and better networks may be
found on the way. One thread; the times are those of the bound alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.base.units import parse_duration_ms
from ofa_profiler.spaces import Genomes
from ofa_search import AccuracyPredictor, Macs, Objective, search
from ofa_search.artifacts.shipped import shipped_predictor
from ofa_search.searching.bounds.proof import Proof
from ofa_search.searching.latency import Latency
from ofa_search.searching.objectives import predicted_accuracy
from ofa_search.searching.problem import Problem


def main() -> None:
    """Run the benchmark and print a line per budget and time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lut", required=True)
    parser.add_argument("--budget", action="append", required=True)
    parser.add_argument("--predictor")
    parser.add_argument("--space", default="cifar-mbv3")
    parser.add_argument("--seconds", default="0.2,10,60")
    arguments = parser.parse_args()
    table = LatencyTable.load(arguments.lut)
    for budget in arguments.budget:
        _bounds(table, _objective(arguments, table), arguments.space, parse_duration_ms(budget), arguments.seconds)


def _objective(arguments: argparse.Namespace, table: LatencyTable) -> Objective:
    if arguments.predictor == "macs":
        return Macs()
    precision = str(table.metadata.get("precision", "fp32"))
    path = Path(arguments.predictor) if arguments.predictor else shipped_predictor(arguments.space, precision)
    assert path is not None, "there is no predictor for this space"
    return predicted_accuracy(AccuracyPredictor.load(path), get_space(arguments.space), precision)


def _bounds(table: LatencyTable, objective: Objective, name: str, budget_ms: float, seconds: str) -> None:
    found = search(name, [(table, budget_ms)], objective)
    space = get_space(name)
    if space.resolution_gene is not None:
        known = set(objective.resolutions(space)) & set(table.complete_resolutions(space))
        space = space.with_resolutions(sorted(known))
    genome = space.encode([found.architecture])[0]
    limit = Latency.of(table, space, None).constraint(budget_ms)
    problem = Problem(space, objective, (limit,), genome)
    best = [found.score]

    def scores(genomes: Genomes) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        kept = genomes[problem.feasible(genomes)]
        given = objective.scores(space, kept) if len(kept) else np.empty(0)
        best[0] = max(best[0], float(given.max(initial=-np.inf)))
        return given

    with threadpool_limits(1, "blas"):
        began = time.perf_counter()
        proof = Proof(problem, found.score, scores)
        for limit_s in map(float, seconds.split(",")):
            proof.run(began + limit_s)
            spent = time.perf_counter() - began
            print(
                f"{table.name} {budget_ms:g} ms: {found.score:.6g} found, best {best[0]:.6g}, after {spent:.2f} s "
                f"bound {proof.bound.score:.6g} ({'exact' if proof.bound.is_exact else 'not exact'})",
                flush=True,
            )


if __name__ == "__main__":
    main()
