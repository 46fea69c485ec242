"""The networks that `benchmarks/pruning.py` prunes, and the training of the one that no package contains.

    python benchmarks/pruning_networks.py --data cifar10 --epochs 24     # writes weights/resnet20-cifar10.safetensors

ResNet-20 is that of He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385, section 4.2), with
1x1 convolutions where the shape changes. The training images are those of `ofa-train`, without the held-out ones.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from ofa_profiler.networks.torch_modules import StaticNetwork, load_weights
from ofa_profiler.spaces import get_space
from ofa_profiler.spaces.base import Preprocessing
from ofa_search.artifacts.shipped import shipped_supernet
from ofa_search.data.batches import augment, prepare
from ofa_search.data.images import Images, load_images
from ofa_search.results.weight_source import weight_source

WEIGHTS = Path(__file__).parent / "weights" / "resnet20-cifar10.safetensors"
PREPROCESSING = Preprocessing((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
HELD_OUT = 5000


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and width_in == width
            else nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        )

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet20(nn.Module):
    """Three stages of three blocks, 16 to 64 channels wide; (N, 3, 32, 32) -> (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.blocks = nn.Sequential(*(BasicBlock(*each) for each in widths))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return out


def resnet20() -> tuple[nn.Module, dict[str, object]]:
    """The trained network and its preprocessing, for `ofa-prune --model`."""
    network = ResNet20()
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    about = {"mean": PREPROCESSING.mean, "std": PREPROCESSING.std, "resolution": 32}
    return network.eval(), about


def cifar_mbv3() -> tuple[nn.Module, dict[str, object]]:
    """The largest subnet of the included supernet for CIFAR-10, and its preprocessing."""
    space = get_space("cifar-mbv3")
    source = weight_source(space, shipped_supernet(space.name), seed=0)
    network = StaticNetwork(space.layout(space.largest))
    load_weights(network, source.of(space.largest))
    about = asdict(space.preprocessing) | {"resolution": space.largest.resolution}
    return network.eval(), about


@torch.no_grad()
def accuracy(network: nn.Module, images: Images) -> float:
    """Top-1 in [0, 1]."""
    network.eval()
    right = 0
    for pixels, labels in images.batches(500):
        inputs = prepare(pixels, None, PREPROCESSING).contiguous(memory_format=torch.channels_last)
        right += int((network(inputs).argmax(1) == labels).sum())
    return right / len(images)


def train(network: nn.Module, images: Images, held_out: Images, epochs: int, batch: int, seed: int) -> None:
    """SGD with a one-cycle schedule, in bfloat16 where the CPU has it."""
    network.to(memory_format=torch.channels_last)
    steps = len(images) // batch
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=epochs * steps, pct_start=0.2)
    begin = time.monotonic()
    for epoch in range(epochs):
        network.train()
        order = np.random.default_rng((seed, epoch)).permutation(len(images))
        for step in range(steps):
            pixels, labels = next(images.take(order[step * batch : (step + 1) * batch]).batches(batch))
            pixels = augment(pixels, np.random.default_rng((seed, epoch, step)))
            inputs = prepare(pixels, None, PREPROCESSING).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(inputs)
            functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        seconds = time.monotonic() - begin
        print(f"epoch {epoch + 1}: {accuracy(network, held_out):.2%} held out, {seconds:.0f} s", flush=True)


def main() -> None:
    """Train ResNet-20 and write its weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as parquet files")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_flush_denormal(True)
    load = partial(load_images, arguments.data, resolution=32)
    images = load()
    training, held_out = images.split(min(HELD_OUT, len(images) // 10))
    network = ResNet20()
    train(network, training, held_out, arguments.epochs, arguments.batch, arguments.seed)
    print(f"test: {accuracy(network, load(split='test')):.2%}")
    arguments.out.parent.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, arguments.out)


if __name__ == "__main__":
    main()
