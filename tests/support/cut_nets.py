"""Small residual networks with what can be removed from them, written by hand, and a cut of parameters by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ofa_search.pruning.groups import CHANNELS, Axis, Dependencies, Group, Kept


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, width_in: int, inner: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and width_in == width
            else nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        )

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResidualNet(nn.Module):
    """A stem, stages of `depth` blocks, and a classifier after the mean (or a flattened last tensor)."""

    def __init__(self, widths: Sequence[int] = (32, 64), depth: int = 2, flat: int = 0) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        blocks, before = [], widths[0]
        for stage, width in enumerate(widths):
            for i in range(depth):
                blocks.append(Block(before, width, width, 2 if stage and not i else 1))
                before = width
        self.blocks = nn.Sequential(*blocks)
        self.flat = flat
        self.head = nn.Linear(before * max(flat, 1), 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.blocks(self.stem(x))
        out = out.flatten(1) if self.flat else out.mean((2, 3))
        found: Tensor = self.head(out)
        return found


def _axes(module: nn.Module, names: Iterable[tuple[str, int]], n_units: int) -> tuple[Axis, ...]:
    state, axes = module.state_dict(), []
    for name, axis in names:
        each = state[name].shape[axis] // n_units
        axes.append(Axis(name, axis, np.repeat(np.arange(n_units), each)))
    return tuple(axes)


def _norm(name: str) -> list[tuple[str, int]]:
    return [(f"{name}.{each}", 0) for each in ("weight", "bias", "running_mean", "running_var")]


def residual_dependencies(net: ResidualNet) -> Dependencies:
    """A group per stage, and one inside each block."""
    groups = []
    stream: list[tuple[list[tuple[str, int]], list[tuple[str, int]], str, int]] = []
    made, read = [("stem.0.weight", 0), *_norm("stem.1")], []
    name, width = "stem.0", net.stem[0].out_channels
    for i, block in enumerate(net.blocks):
        here = f"blocks.{i}"
        read.append((f"{here}.conv1.weight", 1))
        if not isinstance(block.shortcut, nn.Identity):
            read.append((f"{here}.shortcut.0.weight", 1))
            stream.append((made, read, name, width))
            made, read = [(f"{here}.shortcut.0.weight", 0), *_norm(f"{here}.shortcut.1")], []
            name, width = f"{here}.shortcut.0", block.conv2.out_channels
        inner = block.conv1.out_channels
        own = [(f"{here}.conv1.weight", 0), *_norm(f"{here}.bn1")]
        stream.append((own, [(f"{here}.conv2.weight", 1)], f"{here}.conv1", inner))
        made += [(f"{here}.conv2.weight", 0), *_norm(f"{here}.bn2")]
    read.append(("head.weight", 1))
    stream.append((made, read, name, width))
    for made, read, name, width in stream:
        groups.append(Group(name, CHANNELS, width, 1, _axes(net, made, width), _axes(net, read, width)))
    return Dependencies(tuple(groups), ())


def cut_parameters(module: nn.Module, dependencies: Dependencies, kept: Kept) -> None:
    """Keep only some units, in place."""
    for group in dependencies.groups:
        if group.name not in kept:
            continue
        for axis in (*group.made, *group.read):
            keep = np.flatnonzero((axis.units < 0) | np.isin(axis.units, kept[group.name]))
            owner, _, leaf = axis.tensor.rpartition(".")
            layer: Any = module.get_submodule(owner)
            tensor = getattr(layer, leaf)
            new = tensor.detach().index_select(axis.axis, torch.from_numpy(keep)).clone()
            setattr(layer, leaf, nn.Parameter(new) if isinstance(tensor, nn.Parameter) else new)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.out_channels, layer.in_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
        elif isinstance(layer, nn.BatchNorm2d):
            layer.num_features = len(layer.running_mean)
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = layer.weight.shape
