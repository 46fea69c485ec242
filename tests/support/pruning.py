"""A small network with groups of units of every sort, written down by hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ofa_search.pruning.groups import CHANNELS, CONV_GROUPS, Axis, Dependencies, Group, Kept


class SmallNet(nn.Module):
    """A stem, a depthwise block with a shortcut, two more convolutions, a classifier; (N, 3, 8, 8) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.up = nn.Conv2d(8, 16, 1)
        self.up_bn = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(16)
        self.down = nn.Conv2d(16, 8, 1, bias=False)
        self.down_bn = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.pairs = nn.Conv2d(8, 12, 1)
        self.head = nn.Linear(12, 3)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn(self.stem(x)))
        y = functional.relu(self.up_bn(self.up(x)))
        y = functional.relu(self.depthwise_bn(self.depthwise(y)))
        x = self.grouped(x + self.down_bn(self.down(y)))
        out: Tensor = self.head(functional.relu(self.pairs(x)).mean((2, 3)))
        return out


def axes(units: int, *tensors: str, axis: int = 0, repeats: int = 1) -> tuple[Axis, ...]:
    """An axis of each of these tensors, on which each unit has so many neighbouring indices."""
    return tuple(Axis(tensor, axis, np.repeat(np.arange(units), repeats)) for tensor in tensors)


def norm(name: str) -> tuple[str, ...]:
    return tuple(f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var"))


def dependencies() -> Dependencies:
    """Those of `SmallNet`. The units of `pairs` are two channels each, and two of its channels are of no unit."""
    made = axes(8, "stem.weight", *norm("bn"), "down.weight", *norm("down_bn"), "grouped.weight")
    read = (*axes(8, "up.weight", axis=1), *axes(8, "pairs.weight", axis=1))
    stem = Group("stem", CHANNELS, 8, 1, made, read)
    made = axes(16, "up.weight", "up.bias", *norm("up_bn"), "depthwise.weight", *norm("depthwise_bn"))
    up = Group("up", CHANNELS, 16, 1, made, axes(16, "down.weight", axis=1))
    five = np.append(np.repeat(np.arange(5), 2), [-1, -1])
    pairs = (Axis("pairs.weight", 0, five), Axis("pairs.bias", 0, five))
    return Dependencies((stem, up, Group("pairs", CONV_GROUPS, 5, 2, pairs, (Axis("head.weight", 1, five),))), ())


def keep_share(saliency: Mapping[str, NDArray[np.float64]], share: float, ratio: float = 0.5) -> Kept:
    """At the end, the most salient half of each group; on the way there, more."""
    kept = {}
    for name, values in saliency.items():
        count = max(1, round(len(values) * (1 - share * (1 - ratio))))
        kept[name] = np.sort(np.argsort(-values, kind="stable")[:count])
    return kept


def batches(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Images of three brightnesses, whose order is the class."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        labels = torch.from_numpy(rng.integers(0, 3, 16))
        noise = torch.from_numpy(rng.standard_normal((16, 3, 8, 8)).astype(np.float32))
        found.append((noise + labels.view(-1, 1, 1, 1), labels))
    return found
