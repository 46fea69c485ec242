"""What forms are worth to a search: `python benchmarks/forms_search.py PLAIN.csv FAST.csv [--images CIFAR10]`.

Both tables are of the same device, runtime and space, one made with `--forms plain`. For five budgets over the common
range, the search runs with each table. Prints the predicted accuracy of both networks, the largest kernels, and the
latency of the network found with the plain table when it is written in the forms of the other.

With `--images`, the included supernet gives the weights, and the accuracies are measured on the test images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ofa_profiler import Architecture, LatencyTable, get_space
from ofa_search import AccuracyPredictor, search
from ofa_search.artifacts.shipped import shipped_predictor, shipped_supernet

BUDGETS = 5


def budgets_of(plain: LatencyTable, fast: LatencyTable) -> np.ndarray:
    """Budgets from 20% to 80% of the range that both tables have."""
    space = get_space(fast.spaces[0])
    costs = [table.cost(space.with_resolutions(table.resolutions(space))) for table in (plain, fast)]
    lowest, highest = max(cost.minimum()[0] for cost in costs), min(cost.maximum()[0] for cost in costs)
    return lowest + (highest - lowest) * np.linspace(0.1, 0.8, BUDGETS)


def kernels(architecture: Architecture) -> str:
    """How many blocks have kernels of 3, 5 and 7, such as `12/4/2`."""
    sizes = [size for stage in architecture.stages for size in stage.kernel_sizes]
    return "/".join(str(sizes.count(size)) for size in (3, 5, 7))


def main() -> None:
    """Search and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plain", type=Path)
    parser.add_argument("fast", type=Path)
    parser.add_argument("--predictor", type=Path, help="default: the included one")
    parser.add_argument("--images", type=Path)
    arguments = parser.parse_args()
    plain, fast = LatencyTable.load(arguments.plain), LatencyTable.load(arguments.fast)
    space = fast.spaces[0]
    predictor_file = arguments.predictor or shipped_predictor(space)
    if predictor_file is None:
        parser.error(f"give --predictor: none is included for {space}")
    predictor = AccuracyPredictor.load(predictor_file)
    measured = _measuring(space, arguments.images) if arguments.images else lambda _: float("nan")
    print(f"{'budget':>10} {'plain: predicted':>17} {'measured':>9} {'3/5/7':>9} {'now takes':>10}", end="")
    print(f" {'fast: predicted':>16} {'measured':>9} {'3/5/7':>9}")
    for budget_ms in budgets_of(plain, fast):
        before, after = (search(space, [(table, budget_ms)], predictor) for table in (plain, fast))
        now_ms = float(fast.predict_ms([before.architecture])[0])
        print(
            f"{budget_ms:7.3g} ms {before.predicted_accuracy:17.2%} {measured(before.architecture):9.2%}"
            f" {kernels(before.architecture):>9} {now_ms:7.3g} ms {after.predicted_accuracy:16.2%}"
            f" {measured(after.architecture):9.2%} {kernels(after.architecture):>9}",
            flush=True,
        )


def _measuring(space_name: str, path: Path):  # type: ignore[no-untyped-def]
    """A function from an architecture to its top-1 on the test images."""
    from ofa_search.data.images import load_images
    from ofa_search.evaluation.subnets import Evaluator, calibration_of
    from ofa_search.supernet.supernet import load_trained

    space, file = get_space(space_name), shipped_supernet(space_name)
    assert file is not None
    trained = load_trained(file, space_name)
    assert trained.calibration is not None
    images = load_images(path, resolution=max(space.valid_resolutions), split="test")
    return Evaluator(trained.supernet, calibration_of(trained.calibration), images).accuracy


if __name__ == "__main__":
    main()
