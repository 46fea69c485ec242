"""What a choice by value per MAC leaves of a trained network, before any training, for each saliency.

    python benchmarks/saliency.py --data cifar10

The network is the largest subnet of `cifar-mbv3`; the units are the expanded channels of its blocks. Those with the
least saliency per MAC are removed, until the share of the MACs of these layers is left.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from pruning_networks import cifar_mbv3
from torch import Tensor, nn
from torch.nn import functional

from ofa_profiler.spaces.base import Preprocessing
from ofa_search.data.batches import prepare
from ofa_search.data.images import Images, load_images
from ofa_search.pruning.groups import CHANNELS, Axis, Dependencies, Group
from ofa_search.pruning.optimizers.saliency import EQUAL, SCORES, Saliency, normalised
from ofa_search.pruning.optimizers.units import Units

SHARES = (0.5, 0.33, 0.2)
BATCHES, BATCH, TESTED = 20, 64, 1000
SUMS = {**{name: {name: 1.0} for name in SCORES}, "all five": EQUAL, "both taylor": {"taylor1": 0.5, "taylor2": 0.5}}


def expanded(network: nn.Module) -> Dependencies:
    """The channels between the two pointwise convolutions of each block."""
    groups = []
    for name, module in network.named_modules():
        if not (isinstance(module, nn.Conv2d) and name.endswith("depth_conv.conv") and "first" not in name):
            continue
        block, units = name.removesuffix(".depth_conv.conv"), np.arange(module.out_channels)
        tensors = [
            f"{block}.{part}.bn.{kind}" for part in ("inverted_bottleneck", "depth_conv") for kind in ("weight", "bias")
        ]
        tensors += [f"{block}.inverted_bottleneck.conv.weight", f"{name}.weight"]
        made = tuple(Axis(tensor, 0, units) for tensor in tensors)
        groups.append(Group(block, CHANNELS, len(units), 1, made, ()))
    return Dependencies(tuple(groups), ())


def unit_macs(network: nn.Module, dependencies: Dependencies, inputs: Tensor) -> Tensor:
    """For each unit: the MACs of its channel in the three convolutions of its block."""
    pixels: dict[str, int] = {}
    convs = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    hooks = [
        conv.register_forward_hook(
            lambda _m, _i, out, name=name: pixels.__setitem__(name, out.shape[-1] * out.shape[-2])
        )
        for name, conv in convs.items()
    ]
    network(inputs)
    for hook in hooks:
        hook.remove()
    macs = []
    for group in dependencies.groups:
        parts = [f"{group.name}.{part}.conv" for part in ("inverted_bottleneck", "depth_conv", "point_linear")]
        total = sum(pixels[part] * convs[part].weight.numel() / group.n_units for part in parts)
        macs += [total] * group.n_units
    return torch.tensor(macs)


def sampled(network: nn.Module, units: Units, images: Images, preprocessing: Preprocessing) -> dict[str, Tensor]:
    """All scores from the gradients of some batches; the network stays as it is."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    saliency = Saliency(units, EQUAL)
    network.train()
    for pixels, labels in images.batches(BATCH):
        network.zero_grad()
        functional.cross_entropy(network(prepare(pixels, 32, preprocessing)), labels).backward()
        saliency.sample()
    network.load_state_dict(before)
    return saliency.scores()


@torch.no_grad()
def measured(network: nn.Module, images: Images, preprocessing: Preprocessing) -> tuple[float, float]:
    """Loss and top-1."""
    network.eval()
    logits = torch.cat([network(prepare(pixels, 32, preprocessing)) for pixels, _ in images.batches(250)])
    right = (logits.argmax(1) == images.labels).float().mean()
    return float(functional.cross_entropy(logits, images.labels)), float(right)


def main() -> None:
    """Print a row for each saliency and share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as parquet files")
    arguments = parser.parse_args()
    network, about = cifar_mbv3()
    preprocessing = Preprocessing(**{name: value for name, value in about.items() if name != "resolution"})
    dependencies = expanded(network)
    units = Units(network, dependencies)
    training, test = (load_images(arguments.data, 32, split=split) for split in ("train", "test"))
    test = test.take(slice(0, TESTED))
    scores = sampled(network, units, training.take(slice(0, BATCHES * BATCH)), preprocessing)
    with torch.no_grad():
        macs = unit_macs(network.eval(), dependencies, prepare(test.take(slice(0, 1)).pixels, 32, preprocessing))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    print("before: loss {:.3f}, top-1 {:.1%}".format(*measured(network, test, preprocessing)))
    for share in SHARES:
        for name, weights in SUMS.items():
            values = sum(weight * normalised(scores[score]) for score, weight in weights.items())
            order = torch.argsort(values / macs, stable=True)
            removed = torch.zeros(units.total, dtype=torch.bool)
            removed[order[macs[order].cumsum(0) <= (1 - share) * macs.sum()]] = True
            units.erase(removed)
            loss, right = measured(network, test, preprocessing)
            network.load_state_dict(before)
            print(f"{share:.0%} of the MACs by {name}: loss {loss:.3f}, top-1 {right:.1%}", flush=True)


if __name__ == "__main__":
    main()
