"""Accuracy at equal measured latency: pruning to milliseconds beside three other ways to prune.

    python benchmarks/pruning.py resnet20 --data cifar10 --shares 0.5 0.33 --epochs 6 --out out/pruning

All ways start with the same trained network and train for the same epochs, with the same options, on the same images.
Each chooses its widths so that the network takes the same share of the latency of the whole one, measured here on
onnxruntime with one thread. At the end, all results of a share are measured in turns, with the whole network.

    ours          HESSO; the units with the least value per millisecond go
    ours, MACs    the same optimizer with a budget of multiply-accumulates, the largest whose choice keeps the latency
    uniform       the same share of the channels of every group; those with the largest L2 norm are kept
    torch-pruning its group norm importance over all groups at once (`MetaPruner`, global, isomorphic)

Results are kept in `--out`; an interrupted benchmark continues with the next way.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pruning_networks import cifar_mbv3, resnet20
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ofa_profiler.devices.local import LocalDevice
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.spaces.base import Preprocessing
from ofa_search.data.cifar10 import CIFAR10_CLASSES
from ofa_search.data.images import DataSplit, load_images
from ofa_search.evaluation.subnets import network_accuracy
from ofa_search.evaluation.world import join_world
from ofa_search.pruning.cutting.cut import cut
from ofa_search.pruning.graph.find import find_groups
from ofa_search.pruning.groups import Counts, Dependencies, Kept
from ofa_search.pruning.latency.chooser import MacsChooser, chooser, kept_of
from ofa_search.pruning.latency.model import LatencyModel, Saliencies, measured_model
from ofa_search.training.pruning_trainer import PrunableNetwork, PruningOptions, train_pruned
from ofa_search.training.trainer import TrainingOptions

NETWORKS = {"resnet20": resnet20, "cifar-mbv3": cifar_mbv3}
OURS, BY_MACS, UNIFORM, PEER = "ours", "ours, MACs", "uniform", "torch-pruning"
HELD_OUT = 5000
#: How often a way aims lower because its network was over the budget, and by how much.
TRIES, LOWER = 5, 0.98
#: By so many times the noise, a network has to be faster than the budget, as ours has.
MARGIN = 1.5


@dataclass(frozen=True)
class Start:
    """What all ways have in common."""

    module: nn.Module
    preprocessing: Preprocessing
    resolution: int
    dependencies: Dependencies
    model: LatencyModel
    data: DataSplit
    options: TrainingOptions
    pruning: PruningOptions
    out: Path

    @property
    def example(self) -> torch.Tensor:
        return torch.zeros(1, 3, self.resolution, self.resolution)

    def keeps(self, counts: Counts, budget_ms: float) -> bool:
        """Whether a network keeps the budget by the margin that ours keeps, measured."""
        (ms,), noise = self.model.measure_networks([counts])
        return ms * (1 + MARGIN * noise) <= budget_ms


# --- the ways ----------------------------------------------------------------------------------------


def ours(start: Start, budget_ms: float, folder: Path) -> nn.Module:
    """The milliseconds decide during the training."""
    return trained(start, start.module, start.dependencies, chooser(start.model, budget_ms), folder)


def by_macs(start: Start, budget_ms: float, folder: Path) -> nn.Module:
    """Multiply-accumulates decide, with the largest budget whose choice keeps the latency."""
    whole_ms, whole_macs = start.model.whole_ms, start.model.grid.macs.maximum()[0]

    def choose(saliencies: Saliencies, share: float) -> Kept:
        aim_ms = whole_ms - share * (whole_ms - budget_ms)
        for _ in range(TRIES if share >= 1 else 1):
            low, high = start.model.grid.macs.minimum()[0], whole_macs
            for _ in range(30):
                macs = (low + high) / 2
                found = start.model.choose_by_macs(saliencies, macs)
                fits = start.model.predicted_ms(start.model.space.counts(found.genome)) <= aim_ms
                low, high = (macs, high) if fits else (low, macs)
            kept = MacsChooser(start.model, low)(saliencies, 1.0)
            if share < 1 or start.keeps({group: len(units) for group, units in kept.items()}, budget_ms):
                break
            aim_ms *= LOWER
        return kept

    return trained(start, start.module, start.dependencies, choose, folder)


def uniform(start: Start, budget_ms: float, folder: Path) -> nn.Module:
    """One share for all groups, then the training."""
    norms = norms_of(start)
    for share in np.arange(0.95, 0.0, -0.025):
        counts = {
            group.name: min(group.n_units, max(8, round(share * group.n_units / 8) * 8))
            for group in start.dependencies.groups
        }
        if start.keeps(counts, budget_ms):
            break
    module = deepcopy(start.module)
    cut(module, start.dependencies, kept_of(norms, counts))
    return trained_whole(start, module, folder)


def norms_of(start: Start) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """The L2 norm of what makes each unit."""
    tensors, norms = dict(start.module.state_dict()), {}
    for group in start.dependencies.groups:
        squares = np.zeros(group.n_units)
        for axis in group.made:
            if "running" in axis.tensor:
                continue
            values = (
                tensors[axis.tensor].double().movedim(axis.axis, 0).reshape(len(axis.units), -1).square().sum(1).numpy()
            )
            np.add.at(squares, axis.units[axis.units >= 0], values[axis.units >= 0])
        norms[group.name] = np.sqrt(squares)
    return norms


def peer(start: Start, budget_ms: float, folder: Path) -> nn.Module:
    """Torch-Pruning at the smallest ratio that keeps the latency, then the training.

    From some ratio on, its networks grow again. If none keeps the latency, it is the fastest one.
    """
    found: list[tuple[float, nn.Module]] = []
    for ratio in np.arange(0.05, 0.95, 0.025):
        module = pruned_by_peer(start, float(ratio))
        (ms,), noise = start.model.measure_networks([counts_of(module, start.dependencies)])
        found.append((ms, module))
        if ms * (1 + MARGIN * noise) <= budget_ms:
            return trained_whole(start, module, folder)
    return trained_whole(start, min(found, key=lambda each: each[0])[1], folder)


def pruned_by_peer(start: Start, ratio: float) -> nn.Module:
    """One step of Torch-Pruning."""
    import torch_pruning as tp

    module = deepcopy(start.module)
    last = [each for each in module.modules() if isinstance(each, nn.Linear)][-1]
    pruner = tp.pruner.MetaPruner(
        module,
        start.example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        isomorphic=True,
        pruning_ratio=ratio,
        ignored_layers=[last],
        round_to=8,
    )
    pruner.step()
    return module


def counts_of(module: nn.Module, dependencies: Dependencies) -> dict[str, int]:
    """The units that a module pruned by others has left."""
    tensors = module.state_dict()
    return {
        group.name: tensors[group.made[0].tensor].shape[group.made[0].axis] // group.unit_channels
        for group in dependencies.groups
    }


def trained_whole(start: Start, module: nn.Module, folder: Path) -> nn.Module:
    """The same training with nothing to prune."""
    return trained(start, module, find_groups(module, start.example), lambda _saliencies, _share: {}, folder)


def trained(
    start: Start, module: nn.Module, dependencies: Dependencies, choose: Callable[..., Kept], folder: Path
) -> nn.Module:
    """The module after the training, cut."""
    network = PrunableNetwork(deepcopy(module), dependencies, start.preprocessing, start.resolution)
    with join_world("cpu") as world:
        done = train_pruned(network, choose, start.options, start.pruning, start.data, folder, world)
    cut(done.module, dependencies, done.kept)
    return done.module


WAYS: Mapping[str, Callable[[Start, float, Path], nn.Module]] = {
    OURS: ours,
    BY_MACS: by_macs,
    UNIFORM: uniform,
    PEER: peer,
}


# --- the comparison ----------------------------------------------------------------------------------


def compare(start: Start, share: float, ways: Sequence[str]) -> None:
    """All ways at one share of the latency, and their table."""
    (whole_ms,), _ = start.model.measure_networks([{}])
    budget_ms = share * whole_ms
    found: dict[str, dict[str, Any]] = {}
    for way in ways:
        path = start.out / f"{share:g}-{way.replace(', ', '-')}.json"
        if not path.exists():
            begin = time.monotonic()
            module = WAYS[way](start, budget_ms, path.with_suffix(""))
            images = start.data.test or start.data.held_out
            accuracy = network_accuracy(module, images, start.preprocessing, start.resolution)
            document = {
                "accuracy": accuracy,
                "counts": counts_of(module, start.dependencies),
                "params": sum(each.numel() for each in module.parameters()),
                "seconds": time.monotonic() - begin,
            }
            path.write_text(json.dumps(document, indent=2))
        found[way] = json.loads(path.read_text())
        print(f"{way}: {found[way]['accuracy']:.2%} in {found[way]['seconds']:.0f} s", flush=True)
    times, noise = start.model.measure_networks([{}, *(each["counts"] for each in found.values())])
    print(f"\nbudget {budget_ms:.4g} ms, {share:g} of {whole_ms:.4g} ms; noise {noise:.1%}")
    print("| way | accuracy | ms | of the whole | M MACs | parameters |\n| --- | --- | --- | --- | --- | --- |")
    for (way, each), ms in zip(found.items(), times[1:], strict=True):
        macs = macs_of(start, each["counts"]) / 1e6
        print(f"| {way} | {each['accuracy']:.2%} | {ms:.4g} | {ms / times[0]:.1%} | {macs:.1f} | {each['params']} |")


def macs_of(start: Start, counts: Counts) -> int:
    """Multiply-accumulates for one image. Others do not keep to the multiples of the grid."""
    module = deepcopy(start.module)
    cut(module, start.dependencies, {name: np.arange(count) for name, count in counts.items()})
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(start.example)
    return counter.get_total_flops() // 2


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("out/pruning"))
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--epochs", type=float, default=6.0)
    parser.add_argument("--images", type=int, help="train with so many images")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", default="hesso")
    parser.add_argument("--start", type=float, default=PruningOptions.start, help="share of the training")
    parser.add_argument("--end", type=float, default=PruningOptions.end, help="share of the training")
    parser.add_argument("--periods", type=int, default=PruningOptions.periods)
    parser.add_argument("--samples", type=int, default=PruningOptions.samples)
    parser.add_argument("--fp32", action="store_true", help="train in float32, not in bfloat16")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    module, about = NETWORKS[arguments.network]()
    resolution = int(about.pop("resolution"))
    preprocessing = Preprocessing(**about)
    out = arguments.out / arguments.network
    out.mkdir(parents=True, exist_ok=True)
    images = load_images(arguments.data, resolution).with_classes(CIFAR10_CLASSES).take(slice(arguments.images))
    held_out = min(HELD_OUT, len(images) // 10)
    test = load_images(arguments.data, resolution, split="test").with_classes(CIFAR10_CLASSES)
    data = DataSplit(*images.split(held_out), test)
    before = network_accuracy(module, test, preprocessing, resolution)
    dependencies = find_groups(module, torch.zeros(1, 3, resolution, resolution))
    options = TrainingOptions(
        arguments.epochs,
        batch=arguments.batch,
        optimizer="sgd",
        learning_rate=arguments.learning_rate,
        weight_decay=5e-4,
        bf16=not arguments.fp32,
        seed=arguments.seed,
    )
    pruning = PruningOptions(arguments.method, arguments.start, arguments.end, arguments.periods, arguments.samples)
    with LocalDevice() as device:
        shapes = [f"1x3x{resolution}x{resolution}"]
        model = measured_model(module, dependencies, shapes, cut, device, Settings(), out, name="grid")
        start = Start(module, preprocessing, resolution, dependencies, model, data, options, pruning, out)
        print(f"{arguments.network}: {before:.2%} of {len(test)} images before, {arguments.epochs:g} epochs")
        for share in arguments.shares:
            compare(start, share, arguments.ways)


if __name__ == "__main__":
    main()
