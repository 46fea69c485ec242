"""How far searches are from the best known network after so many evaluations: engines, and peers where installed.

    python benchmarks/regret.py --lut note10/ --predictor acc_predictor.pth --budget 25ms --budget 33ms --out regret

Writes `regret.csv` and `regret.png`. An engine plans for its limit, so each of its points is a search of its own with
that limit; those of a peer are the stages of one search. Regret is in points of predicted accuracy below the best
network of all runs and of some searches with the default engine without a limit. Bands hold 80% of the seeds.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from search_peers import PEERS, Peer, Task, engine_run, task_of

from ofa_profiler.base.units import parse_duration_ms

ENGINES = ("evolutionary", "smbo", "mcts", "nsga2", "random")
COLUMNS = ("budget", "method", "evaluations", "seeds", "regret_mean", "regret_low", "regret_high")
#: By method: the best score after each of the points, (seeds, points); NaN where it was not run.
Curves = dict[str, NDArray[np.float64]]


def main() -> None:
    """Run all searches, and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lut", required=True, type=Path)
    parser.add_argument("--predictor", required=True, type=Path)
    parser.add_argument("--space", default="ofa-mbv3-w1.2")
    parser.add_argument("--budget", action="append", required=True)
    parser.add_argument("--points", default="50,100,200,500,1000,2000", help="evaluations (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--slow-seeds", type=int, default=3, help="of optuna (default: 3)")
    parser.add_argument("--slow-evaluations", type=int, default=200, help="of optuna (default: 200)")
    parser.add_argument("--out", required=True, type=Path, help="the files without their endings")
    arguments = parser.parse_args()
    points = tuple(map(int, arguments.points.split(",")))
    rows: list[dict[str, Any]] = []
    for budget in arguments.budget:
        task = task_of(arguments.lut, arguments.predictor, arguments.space, parse_duration_ms(budget))
        curves = {name: _engine_curves(task, name, arguments.seeds, points) for name in ENGINES}
        for peer in PEERS:
            is_slow = peer.package == "optuna"
            seeds = arguments.slow_seeds if is_slow else arguments.seeds
            most = arguments.slow_evaluations if is_slow else points[-1]
            if (why := peer.missing(task)) is not None:
                print(why)
                continue
            curves[peer.name] = _peer_curves(task, peer, seeds, most, points)
        best = [engine_run(task, "evolutionary", 1000 + seed, None)[0] for seed in range(arguments.seeds)]
        highest = max(*best, *(float(np.nanmax(each)) for each in curves.values()))
        print(f"{budget}: the best network has {highest:.4f}", flush=True)
        rows += _rows(budget, curves, points, highest)
    with arguments.out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, arguments.out.with_suffix(".png"))


def _engine_curves(task: Task, name: str, seeds: int, points: tuple[int, ...]) -> NDArray[np.float64]:
    print(f"{task.budget_ms:g} ms, {name}", flush=True)
    return np.array([[engine_run(task, name, seed, limit)[0] for limit in points] for seed in range(seeds)])


def _peer_curves(task: Task, peer: Peer, seeds: int, most: int, points: tuple[int, ...]) -> NDArray[np.float64]:
    print(f"{task.budget_ms:g} ms, {peer.name}", flush=True)
    curves = np.full((seeds, len(points)), np.nan)
    for seed in range(seeds):
        best = np.maximum.accumulate(peer.searched(task, seed, most).scores)
        for place, limit in enumerate(points):
            if limit <= len(best):
                curves[seed, place] = best[limit - 1]
    return curves


def _rows(budget: str, curves: Curves, points: tuple[int, ...], highest: float) -> list[dict[str, Any]]:
    rows = []
    for method, scores in curves.items():
        for limit, column in zip(points, scores.T, strict=True):
            known = 100 * (highest - column[~np.isnan(column)])
            if len(known):
                figures = (known.mean(), *np.quantile(known, (0.1, 0.9)))
                texts = [f"{figure:.4f}" for figure in figures]
                rows.append(dict(zip(COLUMNS, (budget, method, limit, len(known), *texts), strict=True)))
    return rows


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A plot for each budget: regret over evaluations, with bands."""
    from matplotlib.figure import Figure

    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = Figure(figsize=(4.6 * len(budgets), 3.8), dpi=110, layout="constrained")
    for number, budget in enumerate(budgets):
        axes = figure.add_subplot(1, len(budgets), number + 1)
        for place, method in enumerate(methods):
            mine = [row for row in rows if (row["budget"], row["method"]) == (budget, method)]
            if not mine:
                continue
            x = [int(row["evaluations"]) for row in mine]
            mean, low, high = ([float(row[column]) for row in mine] for column in COLUMNS[4:])
            style = "-" if method in ENGINES else "--"
            axes.plot(x, mean, style, color=f"C{place}", marker="o", markersize=3, label=method)
            axes.fill_between(x, low, high, color=f"C{place}", alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        points = sorted({int(row["evaluations"]) for row in rows})
        axes.set_xticks(points, [str(point) for point in points])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_title(f"budget {budget}")
        axes.set_xlabel("evaluations")
        if not number:
            axes.set_ylabel("points below the best known")
            axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(path)


if __name__ == "__main__":
    main()
