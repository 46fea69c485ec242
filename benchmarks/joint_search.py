"""What a joint search of architecture and precision gains: `python benchmarks/joint_search.py --fp32 CSV --int8 CSV
--test TEST.parquet --out DIR`.

At each of five budgets over the range of the mixed networks of two tables of this machine, it finds a network

- in `fp32`, in `int8`, and in `mixed` precision, each by its own search;
- by a search in fp32 whose network is then quantized (`then int8`): the best one of many that keeps the budget in int8.

All files are timed together, interleaved in random order, by a loop that knows only the files; `examples/classify.py`,
which knows only the file, classifies the test images. Prints a Markdown table: milliseconds and top-1 of each.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from budgets import ROUNDS, Timed, runner
from int8_accuracy import classes_of, load_example

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.runtimes import get_runtime
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.tables.mixed import AnyTable, MixedTable
from ofa_search import AccuracyPredictor
from ofa_search.artifacts.shipped import shipped_predictor, shipped_supernet
from ofa_search.results.deployments import deployments_of
from ofa_search.results.files import write_networks
from ofa_search.results.found import Found
from ofa_search.results.weight_source import in_mixed_precision, weight_source
from ofa_search.searching.api import SearchResult, search, search_each
from ofa_search.searching.objectives import predicted_accuracy

STRATEGIES = ("fp32", "then int8", "int8", "mixed")
#: The ends of the range of budgets, as quantiles between the fastest and the slowest mixed network.
_LOW, _HIGH = 0.05, 0.6


@dataclass(frozen=True)
class Choice:
    """A network of one strategy, with the tables that its models are written by."""

    strategy: str
    budget_ms: float
    found: Found
    file: Path


class Searches:
    """The searches of all strategies by two tables."""

    def __init__(self, fp32: LatencyTable, int8: LatencyTable, predictor: AccuracyPredictor, tried: int) -> None:
        """`tried`: budgets of the search in fp32 whose networks are quantized afterwards."""
        self.tables: dict[str, AnyTable] = {"fp32": fp32, "int8": int8, "mixed": MixedTable.of([fp32, int8])}
        (self.name,) = fp32.spaces
        self.space, self.predictor = get_space(self.name), predictor
        self.tried = tried
        self.source = weight_source(self.space, shipped_supernet(self.name), 0)
        self.runtime = get_runtime(str(fp32.metadata["runtime"]))

    def budgets_ms(self, count: int) -> list[float]:
        """Budgets in geometric steps."""
        space = self.mixed_space
        cost = self.tables["mixed"].cost(space)
        lowest, highest = cost.minimum()[0], cost.maximum()[0]
        ends = [lowest + share * (highest - lowest) for share in (_LOW, _HIGH)]
        for precision in ("fp32", "int8"):  # all strategies must have a network
            ends[0] = max(ends[0], 1.01 * self.tables[precision].cost(space.plain).minimum()[0])
        return [float(budget) for budget in np.geomspace(*ends, count)]

    @property
    def mixed_space(self) -> MixedSpace:
        """All mixed networks that both tables know."""
        return MixedSpace.of(self.space.with_resolutions(self.tables["mixed"].complete_resolutions(self.space)))

    def search(self, precision: str, budget_ms: float) -> SearchResult:
        """The best network of this precision."""
        space = self.mixed_space if precision == "mixed" else self.space
        objective = predicted_accuracy(self.predictor, space, precision)
        return search(space, [(self.tables[precision], budget_ms)], objective)

    def quantized(self, budgets_ms: Sequence[float]) -> Iterator[SearchResult]:
        """For each budget the best network of a search in fp32 that keeps it in int8."""
        table, int8 = self.tables["fp32"], self.tables["int8"]
        space = self.space.with_resolutions(table.complete_resolutions(self.space))
        lowest, highest = table.cost(space).minimum()[0], table.cost(space).maximum()[0]
        rows = [[ms] for ms in np.geomspace(lowest, highest, self.tried)]
        found = search_each(space, [table], rows, predicted_accuracy(self.predictor, space, "fp32"))
        times_ms = int8.predict_ms([result.architecture for result in found])
        for budget_ms in budgets_ms:
            kept = [result for result, ms in zip(found, times_ms, strict=True) if ms <= budget_ms]
            yield replace(max(kept or found[:1], key=lambda result: result.score), budget_ms={int8.name: budget_ms})

    def choices(self, budgets_ms: Sequence[float], out: Path) -> Iterator[Choice]:
        """All networks, with their files."""
        quantized = list(self.quantized(budgets_ms))
        for number, budget_ms in enumerate(budgets_ms):
            for strategy in STRATEGIES:
                precision = "int8" if strategy == "then int8" else strategy
                result = quantized[number] if strategy == "then int8" else self.search(precision, budget_ms)
                space = self.mixed_space if precision == "mixed" else self.space
                source = in_mixed_precision(self.source) if precision == "mixed" else self.source
                objective = predicted_accuracy(self.predictor, space, precision)
                found = Found(result, objective, source, deployments_of([self.tables[precision]]), precision)
                folder = out / f"{number}-{strategy.replace(' ', '-')}"
                folder.mkdir(parents=True, exist_ok=True)
                (written,) = write_networks(folder, [found])
                yield Choice(strategy, budget_ms, written, written.files[self.runtime.suffix.removeprefix(".")])


def times_ms(choices: Sequence[Choice]) -> list[float]:
    """The milliseconds of each file, interleaved."""
    timed = [Timed(c.budget_ms, is_verified=False, result={}, run=runner(c.file, 1)) for c in choices]
    for number in range(ROUNDS):
        for i in random.Random(number).sample(range(len(timed)), len(timed)):
            timed[i].visit()
    return [each.ms() for each in timed]


def accuracies(choices: Sequence[Choice], test: Path, count: int) -> list[float]:
    """Top-1 of each file."""
    example = load_example()
    found = [(image.copy(), label) for image, label in example.in_parquet(test)][:count]
    images, labels = [image for image, _ in found], np.array([label for _, label in found])
    prepared: dict[str, list[np.ndarray]] = {}
    classify = partial(classes_of, images=images, prepared=prepared)
    return [float((np.array(classify(example.Network(c.file))) == labels).mean()) for c in choices]


def main() -> None:
    """Search, export, time, classify and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fp32", type=Path, required=True, metavar="CSV")
    parser.add_argument("--int8", type=Path, required=True, metavar="CSV")
    parser.add_argument("--predictor", type=Path, help="of mixed precision (default: the included one)")
    parser.add_argument("--test", type=Path, required=True, help="a parquet file of labelled images")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budgets", type=int, default=5)
    parser.add_argument("--images", type=int, default=10000, help="how many test images (default: %(default)s)")
    parser.add_argument(
        "--quantized", type=int, default=60, help="how many networks of fp32 are quantized (default: %(default)s)"
    )
    arguments = parser.parse_args()
    fp32, int8 = (LatencyTable.load(path) for path in (arguments.fp32, arguments.int8))
    path = arguments.predictor or shipped_predictor(f"{fp32.spaces[0]}-mixed") or shipped_predictor(fp32.spaces[0])
    searches = Searches(fp32, int8, AccuracyPredictor.load(path), arguments.quantized)
    choices = list(searches.choices(searches.budgets_ms(arguments.budgets), arguments.out))
    milliseconds = times_ms(choices)
    top1 = accuracies(choices, arguments.test, arguments.images)
    print("| budget | " + " | ".join(STRATEGIES) + " | blocks in int8, changes of the mixed one |")
    print("| ---: |" + " ---: |" * (len(STRATEGIES) + 1))
    for start in range(0, len(choices), len(STRATEGIES)):
        cells = [f"{choices[start].budget_ms:.3f} ms"]
        cells += [f"{milliseconds[i]:.3f} ms, {top1[i]:.2%}" for i in range(start, start + len(STRATEGIES))]
        bits = choices[start + STRATEGIES.index("mixed")].found.result.architecture.bits
        cells.append(f"{bits.count(8)} of {len(bits)}, {sum(a != b for a, b in pairwise(bits))}")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
