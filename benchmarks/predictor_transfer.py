"""What the transfer of the accuracy predictor gains: `python benchmarks/predictor_transfer.py --samples DIR`.

DIR is the folder of `ofa-train predictor --precision mixed`: networks in mixed precision with their accuracies. In each
of several random splits, some of them are held out. To 50, 100, … of the others, two predictors are fitted: one that is
transferred from the predictor of fp32 (`ofa_search/predictor/transfer.py`), and one that starts from scratch. Prints,
on the held-out networks, Kendall's tau, pairwise accuracy (the share of pairs of networks of which the predictor knows
the better one), and RMSE in points, with the standard deviation over the splits, as a Markdown table.

With `--same DIR`, a folder of `--collect`, it prints the same on networks of the same architecture that differ in bits
alone: the pairs are within an architecture.

    python benchmarks/predictor_transfer.py --collect DIR --data TRAINING-IMAGES --architectures 8 --each 8

measures these, on the images held out from the training of the included supernet. It resumes.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ofa_profiler import Architecture, get_space
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search import AccuracyPredictor
from ofa_search.artifacts.shipped import shipped_predictor, shipped_supernet
from ofa_search.predictor import metrics
from ofa_search.predictor.quality import pairwise_accuracy

SPACE = "cifar-mbv3"
SEED = 7


@dataclass(frozen=True)
class Measured:
    """Networks and their accuracies."""

    networks: list[Architecture]
    accuracies: np.ndarray

    def take(self, numbers: Sequence[int] | np.ndarray) -> Measured:
        """Some of them."""
        return Measured([self.networks[i] for i in numbers], self.accuracies[numbers])


def read_samples(folder: Path) -> Measured:
    """What `ofa-train predictor` or `--collect` has measured."""
    rows = [row for path in folder.glob("samples-*.csv") for row in csv.DictReader(path.open())]
    rows.sort(key=lambda row: int(row["index"]))
    networks = [Architecture.from_json(json.loads(row["architecture"])) for row in rows]
    return Measured(networks, np.array([float(row["accuracy"]) for row in rows]))


# --- networks that differ in bits alone ----------------------------------------------------------------


def collect(folder: Path, data: Path, architectures: int, each: int, images: int | None) -> None:
    """Measure `each` bits of some random architectures."""
    import torch

    from ofa_search.data.images import DataSplit, load_images
    from ofa_search.evaluation.measured import measured_on, number_held_out
    from ofa_search.evaluation.mixed_subnets import MixedEvaluator
    from ofa_search.evaluation.samples import SampleFolder
    from ofa_search.evaluation.world import World
    from ofa_search.supernet.supernet import load_trained

    torch.set_num_threads(1)
    path = shipped_supernet(SPACE)
    assert path is not None
    trained = load_trained(path)
    split = load_images(data, max(trained.supernet.space.resolutions)).split(number_held_out(path, trained))
    measured = measured_on(path, trained, DataSplit(*split), data.name, images)
    evaluator = MixedEvaluator(trained.supernet, measured.calibration, measured.ranges, measured.held_out)
    space, rng = MixedSpace.of(trained.supernet.space), np.random.default_rng(SEED)
    genomes = np.repeat(space.plain.sample_genomes(rng, architectures), each, axis=0)
    drawn = space.decode(space.canonical(np.hstack([genomes, space.draw_bits(rng, len(genomes))])))
    about = {"space": space.name, "seed": SEED, "each": each, "images": len(measured.held_out)}
    folder.mkdir(parents=True, exist_ok=True)
    alone = World(0, 1, torch.device("cpu"))
    store = SampleFolder(folder, "samples", about)
    store.collect(dict(enumerate(drawn)), len(measured.held_out), evaluator.accuracy, alone)


# --- figures -------------------------------------------------------------------------------------------

Predict = Callable[[Sequence[Architecture]], np.ndarray]


def on_all(predict: Predict, held_out: Measured) -> tuple[float, float, float]:
    """Kendall's tau, pairwise accuracy, RMSE in points."""
    predicted = predict(held_out.networks)
    found = metrics(predicted, held_out.accuracies)
    return found.kendall_tau, pairwise_accuracy(predicted, held_out.accuracies), found.rmse


def within(predict: Predict, same: Measured) -> tuple[float, float, float]:
    """The same within each architecture, on average; the RMSE is that of the differences from its mean."""
    groups: dict[Architecture, list[int]] = defaultdict(list)
    space = get_space(f"{SPACE}-mixed")
    assert isinstance(space, MixedSpace)
    for i, network in enumerate(same.networks):
        groups[space.plain_architecture(network)].append(i)
    predicted = predict(same.networks)
    rows = []
    for numbers in groups.values():
        ours, theirs = predicted[numbers], same.accuracies[numbers]
        found = metrics(ours - ours.mean(), theirs - theirs.mean())
        rows.append((np.nan_to_num(found.kendall_tau), pairwise_accuracy(ours, theirs), found.rmse))
    tau, pairs, rmse = np.mean(rows, axis=0)
    return float(tau), float(pairs), float(rmse)


def print_row(count: str, how: str, rows: Sequence[tuple[float, float, float]]) -> None:
    """Means and standard deviations over the splits."""
    (tau, pairs, rmse), (dt, dp, dr) = np.mean(rows, axis=0), np.std(rows, axis=0)
    print(f"| {count} | {how} | {tau:.3f} ± {dt:.3f} | {pairs:.1%} ± {dp:.1%} | {rmse:.3f} ± {dr:.3f} |", flush=True)


def compare(samples: Measured, same: Measured | None, counts: Sequence[int], held_out: int, splits: int) -> None:
    """Print the tables."""
    space = get_space(f"{SPACE}-mixed")
    path = shipped_predictor(SPACE)
    assert path is not None
    start = AccuracyPredictor.load(path).widened(space)
    orders = [np.random.default_rng(split).permutation(len(samples.networks)) for split in range(splits)]
    rows: dict[tuple[str, str, bool], list[tuple[float, float, float]]] = defaultdict(list)
    for split, order in enumerate(orders):
        test, rest = samples.take(order[:held_out]), order[held_out:]
        predictors = {("0", "fp32, untouched"): start}
        for count in counts:
            few = samples.take(rest[:count])
            fit = AccuracyPredictor.fit(space, few.networks, few.accuracies, seed=split)
            transferred = start.transferred(space, few.networks, few.accuracies, seed=split)
            predictors |= {(str(count), "from scratch"): fit, (str(count), "transferred"): transferred}
        for key, predictor in predictors.items():
            rows[(*key, False)].append(on_all(predictor.predict, test))
            if same is not None:
                rows[(*key, True)].append(within(predictor.predict, same))
    for inside in (False, True)[: 1 + (same is not None)]:
        print(f"\n{'same architecture, other bits' if inside else f'{held_out} held-out networks'}, {splits} splits\n")
        print("| samples | predictor | Kendall tau | pairwise accuracy | RMSE (points) |")
        print("| ---: | --- | ---: | ---: | ---: |")
        for (count, how, kind), found in rows.items():
            if kind == inside:
                print_row(count, how, found)


def main() -> None:
    """Measure, or fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=Path, help="folder of ofa-train predictor --precision mixed")
    parser.add_argument("--same", type=Path, help="folder of --collect")
    parser.add_argument("--counts", type=int, nargs="+", default=[50, 100, 300], help="samples to fit to")
    parser.add_argument("--held-out", type=int, default=50, help="networks to predict (default: %(default)s)")
    parser.add_argument("--splits", type=int, default=5, help="random splits (default: %(default)s)")
    parser.add_argument("--collect", type=Path, help="folder for networks of the same architecture")
    parser.add_argument("--data", type=Path, help="the training images, with --collect")
    parser.add_argument("--architectures", type=int, default=8, help="with --collect (default: %(default)s)")
    parser.add_argument("--each", type=int, default=8, help="bits of each of them (default: %(default)s)")
    parser.add_argument("--images", type=int, help="held-out images, with --collect (default: all)")
    arguments = parser.parse_args()
    if arguments.collect is not None:
        if arguments.data is None:
            parser.error("give --data with --collect")
        collect(arguments.collect, arguments.data, arguments.architectures, arguments.each, arguments.images)
    if arguments.samples is not None:
        samples = read_samples(arguments.samples)
        if len(samples.networks) < arguments.held_out + max(arguments.counts):
            parser.error(f"{len(samples.networks)} networks are too few for these --counts and --held-out")
        same = read_samples(arguments.same) if arguments.same is not None else None
        compare(samples, same, arguments.counts, arguments.held_out, arguments.splits)


if __name__ == "__main__":
    main()
