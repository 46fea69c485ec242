"""Measures the quality and speed of a search, and the speed of a predictor in architectures per second.

    python benchmarks/search.py --lut note10/ --predictor acc_predictor.pth [--budget 25ms] [--seeds 20]
    python benchmarks/search.py --lut note10/ --predictor acc_predictor.pth --evaluations 1000 --seeds 5
    python benchmarks/search.py --lut note10/ --predictor acc_predictor.pth --finder --seeds 3

Prints the result of the engine for each seed, the spread over the seeds, and the speed of the predictor on genomes
(used by engines) and on architecture objects (used by `predict`), on one core. With `--evaluations`, all engines and
the peers that are installed (pymoo, optuna, ofa; `search_peers.py`) at equal evaluations. With `--finder`, the engine
beside the whole search of the finder of PyPI's `ofa`: by the default settings of both, and limited to `--evaluations`
(default: 2000), which gives the time in which the engine is better than the finder.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from search_peers import PEERS, Task, engine_run, task_of, whole_finder
from threadpoolctl import threadpool_limits

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.base.units import parse_duration_ms
from ofa_search import AccuracyPredictor, search
from ofa_search.searching.engines import DEFAULT_ENGINE, engine_names

ARCHITECTURES = 20 * 1024
#: Evaluations after which the default engine is better than the finder.
_FEW = 2000


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lut", required=True)
    parser.add_argument("--predictor", required=True)
    parser.add_argument("--space", default="ofa-mbv3-w1.2")
    parser.add_argument("--budget", default="25ms")
    parser.add_argument("--engine", default=DEFAULT_ENGINE)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, help="compare engines and peers at so many evaluations")
    parser.add_argument("--finder", action="store_true", help="compare with the whole search of the finder of ofa")
    arguments = parser.parse_args()
    if arguments.evaluations is not None or arguments.finder:
        _compare(arguments)
        return
    table, predictor = LatencyTable.load(arguments.lut), AccuracyPredictor.load(arguments.predictor)
    _searches(table, predictor, arguments)
    _speed(predictor, arguments.space)


def _compare_finder(task: Task, engine: str, seeds: Sequence[int], few: int) -> None:
    (finder,) = (peer for peer in PEERS if peer.package == "ofa")
    own = {
        name: [engine_run(task, engine, seed, limit) for seed in seeds]
        for name, limit in ((engine, None), (f"at most {few}", few))
    }
    for name, runs in own.items():
        _print_row(name, [(score, seconds) for score, _, seconds in runs])
    if (why := finder.missing(task)) is not None:
        print(why)
        return
    published = [whole_finder(task, seed) for seed in seeds]
    _print_row(finder.name, published)
    for name, runs in own.items():
        ratio = np.mean([seconds for _, seconds in published]) / np.mean([seconds for *_, seconds in runs])
        print(f"{name}: {ratio:.1f} times as fast")


def _compare(arguments: argparse.Namespace) -> None:
    budget_ms = parse_duration_ms(arguments.budget)
    task = task_of(Path(arguments.lut), Path(arguments.predictor), arguments.space, budget_ms)
    seeds, limit = range(arguments.seeds), arguments.evaluations
    print(f"{arguments.space}, {arguments.budget}, {arguments.seeds} seeds")
    print(f"{'method':16}  {'worst':>8}  {'mean':>8}  {'best':>8}  {'cpu s':>8}")
    if arguments.finder:
        _compare_finder(task, arguments.engine, seeds, limit or _FEW)
        return
    print(f"at most {limit} evaluations")
    for name in engine_names():
        if name != "exact":  # the default, and a proof that takes as long as it may
            runs = [engine_run(task, name, seed, limit) for seed in seeds]
            _print_row(name, [(score, seconds) for score, _, seconds in runs])
    for peer in PEERS:
        if (why := peer.missing(task)) is not None:
            print(why)
            continue
        found = [peer.searched(task, seed, limit) for seed in seeds]
        _print_row(peer.name, [(float(run.scores.max()), run.seconds) for run in found])


def _print_row(name: str, runs: Sequence[tuple[float, float]]) -> None:
    scores, seconds = np.array(runs).T
    print(f"{name:16}  {scores.min():.6f}  {scores.mean():.6f}  {scores.max():.6f}  {seconds.mean():8.2f}", flush=True)


def _searches(table: LatencyTable, predictor: AccuracyPredictor, arguments: argparse.Namespace) -> None:
    limit = (table, parse_duration_ms(arguments.budget))
    print(f"{arguments.space}, {arguments.budget} on {table.name}, engine {arguments.engine}")
    print("seed  accuracy  latency_ms  evaluations  seconds  evaluations/s")
    rows = []
    for seed in range(arguments.seeds):
        r = search(arguments.space, [limit], predictor, engine=arguments.engine, seed=seed)
        rows.append((r.predicted_accuracy, r.latency_ms[table.name], r.evaluations, r.search_seconds))
        rate = r.evaluations / r.search_seconds
        print(f"{seed:4}  {rows[-1][0]:.6f}  {rows[-1][1]:10.4f}  {r.evaluations:11}  {rows[-1][3]:7.2f}  {rate:13.0f}")
    values = np.array(rows, dtype=float)
    for name, function in (("min", np.min), ("mean", np.mean), ("max", np.max)):
        accuracy, latency, evaluations, seconds = function(values, axis=0)
        print(f"{name:4}  {accuracy:.6f}  {latency:10.4f}  {evaluations:11.0f}  {seconds:7.2f}")


def _speed(predictor: AccuracyPredictor, space_name: str) -> None:
    space = get_space(space_name)
    space = space.with_resolutions(predictor.resolutions_of(space))
    genomes = space.sample_genomes(np.random.default_rng(0), ARCHITECTURES)
    architectures = space.decode(genomes)
    print(f"predictor, one core, best of 5: {_rate(lambda: predictor.predict_genomes(space, genomes)):.0f} genomes/s")
    print(f"predictor, one core, best of 5: {_rate(lambda: predictor.predict(architectures)):.0f} architectures/s")


def _rate(function: Callable[[], object]) -> float:
    """Architectures per second."""
    best = np.inf
    with threadpool_limits(1):
        for _ in range(5):
            began = time.perf_counter()
            function()
            best = min(best, time.perf_counter() - began)
    return ARCHITECTURES / float(best)


if __name__ == "__main__":
    main()
