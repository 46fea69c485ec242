"""Measures the speed of training: `python benchmarks/train_step.py [SPACE [RESOLUTION [BATCH [THREADS [ROUNDS]]]]]`.

Images per second on the CPU, forward and backward, of the largest, a middle and the smallest subnet of SPACE (default:
cifar-mbv3 at 32 pixels, batches of 64, the default threads of torch), in four ways:

    ofa            the elastic layers of PyPI's `ofa`, as its code runs them (omitted if it is not installed)
    naive          our network in torch's default format (NCHW), with torch's own depthwise convolution
    channels-last  our network with that format alone
    ours           that format, `depthwise_conv2d` and `keep_freed_memory`, as in training

Each way has its own process. They take turns, one step each, in a new random order each round, so other load on the
machine affects all of them. Prints two tables: wall time, and CPU time of the processes, which excludes other
programs. Numbers are medians over the rounds; `x naive` and `x ofa` are medians of the ratios within a round.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import random
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ofa_profiler import Architecture, get_space
from ofa_profiler.spaces.mobilenetv3 import MobileNetV3Space
from ofa_search.supernet import elastic
from ofa_search.supernet.supernet import Supernet
from ofa_search.training.memory import keep_freed_memory

ROUNDS = 15
WAYS = ("ofa", "naive", "channels-last", "ours")

Forward = Callable[[Tensor, Architecture], Tensor]


def plain_depthwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The same as `depthwise_conv2d`, but with torch's convolution."""
    return functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=x.shape[1])


def naive(supernet: Supernet) -> Forward:
    """Return the forward pass of the supernet without a change of the memory format."""

    def forward(x: Tensor, architecture: Architecture) -> Tensor:
        for slot, op in supernet.space.layout(architecture):
            x = supernet.elastic_op(slot)(x, op)
        return x

    return forward


class OfaNetwork(nn.Module):
    """A MobileNetV3 space from the elastic layers of PyPI's `ofa`, whose own network has fixed widths."""

    def __init__(self, space: MobileNetV3Space) -> None:
        super().__init__()
        sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
        from support.reference import do_without_torchvision

        do_without_torchvision()
        from ofa.imagenet_classification.elastic_nn.modules import DynamicMBConvLayer
        from ofa.utils.layers import ConvLayer, IdentityLayer, LinearLayer, MBConvLayer, ResidualBlock

        def block(conv: nn.Module, stride: int, inputs: int, outputs: int) -> nn.Module:
            return ResidualBlock(conv, IdentityLayer(inputs, inputs) if stride == 1 and inputs == outputs else None)

        stem, width = space.stem_width, space.first_width
        self.first_conv = ConvLayer(3, stem, 3, space.stem_stride, act_func=space.stem_activation)
        first = MBConvLayer(stem, width, 3, 1, expand_ratio=1, act_func=space.first_activation)
        self.first_block = block(first, 1, stem, width)
        self.stages = nn.ModuleList()
        for stage, depths in enumerate(space.stage_depths):
            blocks = nn.ModuleList()
            for position in range(max(depths)):
                stride = 1 if position else space.stage_strides[stage]
                conv = DynamicMBConvLayer(
                    [width],
                    [space.stage_widths[stage]],
                    list(space.kernel_sizes),
                    list(space.expand_ratios),
                    stride,
                    space.stage_activations[stage],
                    space.stage_se[stage],
                )
                blocks.append(block(conv, stride, width, space.stage_widths[stage]))
                width = space.stage_widths[stage]
            self.stages.append(blocks)
        self.final_expand = ConvLayer(width, space.final_expand_width, 1, act_func="h_swish")
        self.feature_mix = ConvLayer(
            space.final_expand_width, space.feature_mix_width, 1, use_bn=False, act_func="h_swish"
        )
        self.classifier = LinearLayer(space.feature_mix_width, space.n_classes)

    def forward(self, x: Tensor, architecture: Architecture) -> Tensor:
        x = self.first_block(self.first_conv(x))
        for blocks, stage in zip(self.stages, architecture.stages, strict=True):
            for block, kernel_size, expand_ratio in zip(blocks, stage.kernel_sizes, stage.expand_ratios, strict=False):
                block.conv.active_kernel_size = kernel_size
                block.conv.active_expand_ratio = expand_ratio
                x = block(x)
        x = self.final_expand(x).mean(3, keepdim=True).mean(2, keepdim=True)
        logits: Tensor = self.classifier(self.feature_mix(x).flatten(1))
        return logits


def network(way: str, space: MobileNetV3Space) -> tuple[nn.Module, Forward]:
    """Return the module with the parameters, and its forward pass."""
    if way == "ofa":
        ofa = OfaNetwork(space).train()
        return ofa, ofa
    supernet = Supernet(space).train()
    if way == "ours":
        keep_freed_memory()
    else:
        elastic.depthwise_conv2d = plain_depthwise
    return supernet, naive(supernet) if way == "naive" else supernet


def work(way: str, name: str, resolution: int, batch: int, threads: int, pipe: Connection) -> None:
    """Run a process that trains one step per received architecture, and sends (seconds, CPU seconds)."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    space: Any = get_space(name)
    try:
        module, forward = network(way, space)
    except ImportError as error:
        pipe.send(f"{type(error).__name__}: {error}")
        return
    pipe.send("")
    images = torch.randn(batch, 3, resolution, resolution)
    labels = torch.randint(space.n_classes, (batch,))
    while (architecture := pipe.recv()) is not None:
        start, start_cpu = time.perf_counter(), time.process_time()
        functional.cross_entropy(forward(images, architecture), labels).backward()
        module.zero_grad()
        pipe.send((time.perf_counter() - start, time.process_time() - start_cpu))


def start(name: str, resolution: int, batch: int, threads: int) -> dict[str, Connection]:
    """Start a process per way that can run here. Return the pipes to them."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for way in WAYS:
        if way == "ofa" and importlib.util.find_spec("ofa") is None:
            print("PyPI's `ofa` is not installed")
            continue
        pipe, other = context.Pipe()
        context.Process(target=work, args=(way, name, resolution, batch, threads, other), daemon=True).start()
        other.close()  # so that `recv` fails if the process crashes
        problem = pipe.recv()
        if problem:
            print(f"{way} cannot run: {problem}")
        else:
            pipes[way] = pipe
    return pipes


def measure(
    pipes: dict[str, Connection], architecture: Architecture, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Return (seconds, CPU seconds) of each way in each round."""
    order, times = list(pipes), {way: [] for way in pipes}
    for repetition in range(-2, rounds):  # the first two warm up
        random.shuffle(order)
        for way in order:
            pipes[way].send(architecture)
            result = pipes[way].recv()
            if repetition >= 0:
                times[way].append(result)
    return times


def report(title: str, kind: int, results: dict[str, dict[str, list[tuple[float, float]]]], batch: int) -> None:
    """Print the table of one kind of seconds. `kind` is its position in the results."""
    print(f"\nimages/s by {title}\n{'subnet':10}{'way':16}{'images/s':>9}{'x naive':>9}{'x ofa':>9}")
    for subnet, times in results.items():
        for way in times:
            seconds = [result[kind] for result in times[way]]
            line = f"{subnet:10}{way:16}{batch / statistics.median(seconds):9.1f}"
            for reference in ("naive", "ofa"):
                others = [result[kind] for result in times.get(reference, [])]
                ratios = [other / own for other, own in zip(others, seconds, strict=False)]
                line += f"{statistics.median(ratios):9.2f}" if ratios else f"{'-':>9}"
            print(line)


def main() -> None:
    """Run the benchmark and print its tables."""
    name = sys.argv[1] if len(sys.argv) > 1 else "cifar-mbv3"
    space = get_space(name)
    numbers = [int(argument) for argument in sys.argv[2:6]]
    defaults = [max(space.resolutions), 64, torch.get_num_threads(), ROUNDS]
    resolution, batch, threads, rounds = [*numbers, *defaults[len(numbers) :]]
    pipes = start(name, resolution, batch, threads)
    # The middle of 99 random subnets by MACs.
    rng = np.random.default_rng(0)
    middle = sorted((space.sample(rng) for _ in range(99)), key=space.macs)[49]
    subnets = {"largest": space.largest, "middle": middle, "smallest": space.smallest}
    results = {subnet: measure(pipes, architecture, rounds) for subnet, architecture in subnets.items()}
    print(f"{name}, {resolution} px, batch {batch}, {threads} thread(s), torch {torch.__version__}, {rounds} rounds")
    report("wall time", 0, results, batch)
    report("CPU time", 1, results, batch)
    for pipe in pipes.values():
        pipe.send(None)


if __name__ == "__main__":
    main()
