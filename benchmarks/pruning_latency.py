"""How well the latency model of `ofa-prune` predicts pruned networks, and what it costs.

    python benchmarks/pruning_latency.py --network resnet18 --resolution 96 --out /tmp/pruning-latency
    python benchmarks/pruning_latency.py --network cifar-mbv3 --resolution 32 --runtime litert --out /tmp/on-litert

A design is measured on this machine. Then random pruned networks, and choices for random saliencies at several budgets,
are measured as wholes and compared with the predictions.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ofa_profiler.devices.local import LocalDevice
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target
from ofa_search.pruning.cutting.cut import cut
from ofa_search.pruning.graph.find import find_groups
from ofa_search.pruning.latency.budget import keep_budget
from ofa_search.pruning.latency.model import LatencyModel, measured_model

_PARTS = (0.75, 0.5, 0.35)


def network(name: str) -> nn.Module:
    """`resnet20` (untrained) or `cifar-mbv3` of this folder, or an untrained one of timm."""
    torch.manual_seed(0)
    if name == "cifar-mbv3":
        from pruning_networks import cifar_mbv3

        return cifar_mbv3()[0]
    if name == "resnet20":
        from pruning_networks import ResNet20

        return ResNet20().eval()
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from support.torchvision_operators import complete_torchvision

    complete_torchvision()
    import timm

    found: nn.Module = timm.create_model(name)
    return found.eval()


def report_random(model: LatencyModel, count: int, seed: int) -> None:
    """Random pruned networks."""
    genomes = model.space.sample_genomes(np.random.default_rng(seed), count)
    several = [model.space.counts(genome) for genome in genomes]
    measured, noise = model.measure_networks(several)
    predicted = np.array([model.predicted_ms(counts) for counts in several])
    ratios = predicted / np.array(measured)
    errors, steady = np.abs(ratios - 1), np.abs(ratios / np.median(ratios) - 1)
    print(f"{count} random networks: {min(measured):.3f} to {max(measured):.3f} ms, noise {noise:.1%}")
    print(f"mean error {errors.mean():.2%}, largest {errors.max():.2%}")
    print(f"but for one factor of the session: mean {steady.mean():.2%}, largest {steady.max():.2%}")


def report_budgets(model: LatencyModel, seed: int) -> None:
    """Choices that are measured until they keep the budget."""
    rng = np.random.default_rng(seed)
    groups = model.dependencies.groups
    saliencies = {group.name: rng.lognormal(0.0, 0.5, group.n_units) / group.n_units**0.5 for group in groups}
    lowest_ms, _ = model.attainable_ms
    for part in _PARTS:
        if part * model.whole_ms < lowest_ms:
            print(f"{part:.0%} of the whole network is less than the attainable {lowest_ms:.3f} ms")
            continue
        begin_s = time.perf_counter()
        found = keep_budget(model, saliencies, part * model.whole_ms)
        seconds = time.perf_counter() - begin_s
        print(
            f"budget {found.budget_ms:.3f} ms: predicted {found.predicted_ms:.3f}, measured {found.measured_ms:.3f}, "
            f"gap to the bound {found.gap:.2%}; {found.rounds} rounds, {found.networks} networks, {seconds:.0f} s"
        )


def main() -> None:
    """Measure, predict, choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--runtime", default="onnxruntime", help="onnxruntime (default) or litert")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--levels", type=int, default=5)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    module = network(arguments.network)
    inputs = torch.zeros(1, 3, arguments.resolution, arguments.resolution)
    dependencies = find_groups(module, (inputs,))
    shapes = [f"1x3x{arguments.resolution}x{arguments.resolution}"]
    begin_s = time.perf_counter()
    settings = Settings(Target(arguments.runtime))
    model = measured_model(
        module, dependencies, shapes, cut, LocalDevice(), settings, arguments.out, levels=arguments.levels
    )
    seconds = time.perf_counter() - begin_s
    points, every = model.grid.n_points
    assert model.design_replay is not None
    distinct = len(model.design_replay.visits)
    print(f"{arguments.network} with {arguments.runtime}, {seconds:.0f} s")
    print(f"{len(model.space.widths)} genes, {len(model.space.places)} slots")
    print(f"{points} of {every} points measured, {distinct} of them differ")
    print(f"correction {model.grid.correction}")
    report_random(model, arguments.count, arguments.seed)
    report_budgets(model, arguments.seed)
    points, every = model.grid.n_points
    print(f"{points} of {every} points measured in the end")


if __name__ == "__main__":
    main()
