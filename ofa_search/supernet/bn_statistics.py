"""BatchNorm statistics of subnets, looked up in a table instead of measured with images.

Every subnet needs BatchNorm statistics of its own (`recalibrate`). But the input of a BatchNorm hardly
depends on most of the choices, because the branches of a network are normalised. It depends on

- the resolution, and the slot before the op (the depth of the stage before it),
- the kernel sizes inside the op up to this layer,
- the width inside the op, and only for layers that mix channels: a channel of an expansion or of a
  depthwise convolution is the same for any number of channels after it.

Therefore statistics that were measured on a few hundred subnets and averaged by these keys fit all subnets. A
supernet file contains such a table when its training images may not be published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.blocks import Layout
from ofa_profiler.networks.layers import Conv
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.parameters import Array, Weights

_FIELDS = ("running_mean", "running_var")


@dataclass(frozen=True, eq=False)
class StatisticsTable:
    """Mean and variance, (2, channels), by key. A BatchNorm over fewer channels takes the first ones."""

    entries: Mapping[str, NDArray[np.float32]]

    def applied(self, layout: Layout, weights: Weights) -> dict[str, Array]:
        """Return the weights of a network, with the statistics of this table.

        Raises `UsageError` if the table lacks a layer of the network.
        """
        changed = dict(weights)
        for resolution, name, keys, channels in _norms(layout):
            known = (self.entries[key] for key in keys if key in self.entries)
            entry = next((entry for entry in known if entry.shape[1] >= channels), None)
            if entry is None:
                raise UsageError(f"no BatchNorm statistics for {name} at resolution {resolution}, as in {keys[0]}")
            for field, values in zip(_FIELDS, entry, strict=True):
                changed[f"{name}.bn.{field}"] = values[:channels].copy()
        return changed


class StatisticsSum:
    """The sum of the statistics of measured subnets."""

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, NDArray[np.float64]] = {}

    def add(self, layout: Layout, weights: Weights) -> None:
        """Add a network after its recalibration."""
        for _, name, keys, channels in _norms(layout):
            values = np.stack([weights[f"{name}.bn.{field}"] for field in _FIELDS])
            for key in keys:
                self._grow(key, channels)
                self._sums[key][:, :channels] += values
                self._counts[key][:channels] += 1

    def _grow(self, key: str, channels: int) -> None:
        lacking = channels - self._counts[key].size if key in self._counts else channels
        if key not in self._counts:
            self._sums[key], self._counts[key] = np.zeros((2, channels)), np.zeros(channels)
        elif lacking > 0:
            self._sums[key] = np.pad(self._sums[key], ((0, 0), (0, lacking)))
            self._counts[key] = np.pad(self._counts[key], (0, lacking))

    def merged(self, others: Iterable[StatisticsSum]) -> StatisticsSum:
        """Return the sum of this and the others."""
        total = StatisticsSum()
        for part in (self, *others):
            for key, counts in part._counts.items():
                total._grow(key, counts.size)
                total._sums[key][:, : counts.size] += part._sums[key]
                total._counts[key][: counts.size] += counts
        return total

    def table(self) -> StatisticsTable:
        """Return the means as a table."""
        return StatisticsTable(
            {key: (self._sums[key] / self._counts[key]).astype(np.float32) for key in sorted(self._sums)}
        )


def _norms(layout: Layout) -> Iterator[tuple[int, str, tuple[str, str], int]]:
    """Yield for each BatchNorm: resolution, name of its layer, exact and general key, channels."""
    resolution = layout[0][1].input_shape[0]
    before = "input"
    for slot, op in layout:
        for layer, inside in _inside(op):
            name = f"{slot}.{layer.name}"
            # The second key is a mean over all preceding slots. It is used if the exact key was never measured.
            keys = (f"{name}|{resolution}|{inside}|{before}", f"{name}|{resolution}|{inside}")
            yield resolution, name, keys, layer.out_channels
        before = slot


def covered(layout: Layout) -> list[tuple[str, int]]:
    """Return the entries that a network adds to a table: general keys, with the number of channels."""
    return [(keys[1], channels) for _, _, keys, channels in _norms(layout)]


def needed(slot: str, op: Op, resolution: int) -> list[tuple[str, int]]:
    """Return the entries that a table needs for an op in that slot at that resolution."""
    return [(f"{slot}.{layer.name}|{resolution}|{inside}", layer.out_channels) for layer, inside in _inside(op)]


def _inside(op: Op) -> Iterator[tuple[Conv, str]]:
    """Yield the layers of an op that have a BatchNorm, each with the part of its key that depends on the op."""
    for branch in op.graph.branches:
        kernel_sizes: list[int] = []
        for position, node in enumerate(branch):
            layer = node.layer
            if not isinstance(layer, Conv):
                continue
            kernel_sizes.append(layer.kernel_size)
            if layer.batch_norm:
                kernels = "x".join(map(str, kernel_sizes))
                mixes_inside = position > 0 and layer.groups == 1
                yield layer, f"{kernels}|{layer.in_channels}" if mixes_inside else kernels
