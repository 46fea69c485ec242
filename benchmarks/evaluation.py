"""Measures the speed of evaluating a subnet on the CPU: `python benchmarks/evaluation.py [SPACE [IMAGES]]`.

Milliseconds of CPU time per image, on one thread, to classify IMAGES (default: 500) made-up images with the smallest,
a middle and the largest subnet of SPACE (default: cifar-mbv3), in three ways:

    torch         the subnet as a torch module in channels-last format
    folded        the same with BatchNorm folded into the convolutions
    onnxruntime   exported and run by onnxruntime, as in `Evaluator`; export and loading included

and `recalibrate`, the time of BatchNorm statistics per calibration image. The ways take turns, so other load on the
machine affects all of them. Numbers are medians over the rounds; `x torch` is the median of the ratios within a round.
`agree` is the share of images with the same class in all ways.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ofa_profiler import Architecture, get_space
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.networks.torch_modules import ConvModule, StaticNetwork, load_weights
from ofa_profiler.spaces import SearchSpace
from ofa_search.evaluation.subnets import CPU_BATCH, onnx_classes, representatives, torch_classes
from ofa_search.supernet.recalibration import recalibrate
from ofa_search.training.memory import keep_freed_memory

ROUNDS = 5
BATCH = 100


def folded(network: StaticNetwork) -> StaticNetwork:
    """A copy without BatchNorm."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, ConvModule) and isinstance(module.bn, nn.BatchNorm2d):
            assert isinstance(module.conv, nn.Conv2d)
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def measure(space: SearchSpace, architecture: Architecture, images: int) -> tuple[list[dict[str, float]], float]:
    """Return the CPU seconds of each way in each round, and the share of images on which all ways agree."""
    layout = space.layout(architecture)
    weights = random_weights(layout, np.random.default_rng(0))
    network = StaticNetwork(layout).eval()
    load_weights(network, weights)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    lean = folded(network)
    resolution = architecture.resolution
    inputs = torch.randn(images, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    large, small = torch.split(inputs, BATCH), torch.split(inputs, CPU_BATCH)
    ways: dict[str, Callable[[], Tensor | None]] = {
        "torch": lambda: torch_classes(network, large),
        "folded": lambda: torch_classes(lean, large),
        "onnxruntime": lambda: onnx_classes(layout, weights, small),
        "recalibrate": lambda: recalibrate(copy.deepcopy(network), large),
    }
    found: dict[str, Tensor] = {}
    rounds = []
    for _ in range(ROUNDS):
        seconds = {}
        for name, way in ways.items():
            start = time.process_time()
            classes = way()
            seconds[name] = time.process_time() - start
            if classes is not None:
                found[name] = classes
        rounds.append(seconds)
    same = torch.stack([classes == found["torch"] for classes in found.values()]).all(0)
    return rounds, float(same.float().mean())


def main(name: str = "cifar-mbv3", count: str = "500") -> None:
    """Measure and print a table."""
    torch.set_num_threads(1)
    keep_freed_memory()
    space, images = get_space(name), int(count)
    print(f"{name}, {images} images, one thread, ms of CPU time per image")
    print(f"{'':10}{'torch':>10}{'folded':>10}{'onnxruntime':>13}{'x torch':>9}{'recalibrate':>13}{'agree':>8}")
    for size, architecture in representatives(space).items():
        rounds, same = measure(space, architecture, images)
        ms = {way: statistics.median(one[way] for one in rounds) / images * 1e3 for way in rounds[0]}
        faster = statistics.median(one["torch"] / one["onnxruntime"] for one in rounds)
        print(
            f"{size:10}{ms['torch']:10.3f}{ms['folded']:10.3f}{ms['onnxruntime']:13.3f}{faster:9.2f}"
            f"{ms['recalibrate']:13.3f}{same:8.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
