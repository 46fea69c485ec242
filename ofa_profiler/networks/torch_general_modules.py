"""The torch modules of the general layers. `torch_modules.py` has those of the search spaces."""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ofa_profiler.networks.layers import (
    Activate,
    Affine,
    AnyConv,
    ChannelShuffle,
    ChannelSlice,
    Layer,
    Pad,
    WindowMax,
    WindowMean,
)
from ofa_profiler.networks.layers.activations import get_activation
from ofa_profiler.networks.layers.any_conv import Margins


class LayerModule(nn.Module):
    """A module that knows its layer."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer


def padded(x: Tensor, pads: Margins, value: float = 0.0) -> Tensor:
    """A map with margins."""
    top, left, bottom, right = pads
    return functional.pad(x, (left, right, top, bottom), value=value)


class ActivateModule(nn.Sequential):
    """An `Activate` layer: a tensor -> the same shape."""

    def __init__(self, layer: Activate) -> None:
        super().__init__(getattr(nn, get_activation(layer.activation).torch)())


class AffineModule(LayerModule):
    """An `Affine` layer: (N, C, H, W) or (N, C) -> the same."""

    def __init__(self, layer: Affine) -> None:
        super().__init__(layer)
        self.weight = nn.Parameter(torch.ones(layer.channels))
        self.bias = nn.Parameter(torch.zeros(layer.channels))
        self._activation = getattr(nn, get_activation(layer.activation).torch)()

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.dim() - 2))
        y: Tensor = self._activation(x * self.weight.view(shape) + self.bias.view(shape))
        return y


class AnyConvModule(nn.Sequential):
    """An `AnyConv` layer: (N, in, H, W) -> (N, out, rows, columns)."""

    def __init__(self, layer: AnyConv) -> None:
        conv = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel,
            layer.strides,
            dilation=layer.dilations,
            groups=layer.groups,
        )
        activation = getattr(nn, get_activation(layer.activation).torch)()
        super().__init__(OrderedDict(conv=conv, activation=activation))
        self._pads = layer.pads

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in nn.Sequential
        y: Tensor = super().forward(padded(input, self._pads))  # type: ignore[no-untyped-call]
        return y


class AsMapModule(LayerModule):
    """An `AsMap` layer: (N, C) -> (N, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, None, None]


class ChannelShuffleModule(nn.ChannelShuffle):
    """A `ChannelShuffle` layer: (N, C, H, W) -> the same."""

    def __init__(self, layer: ChannelShuffle) -> None:
        super().__init__(layer.groups)


class ChannelSliceModule(LayerModule):
    """A `ChannelSlice` layer: (N, C, ...) -> (N, fewer, ...)."""

    layer: ChannelSlice

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.layer.start : self.layer.stop]


class ConcatModule(LayerModule):
    """A `Concat` layer: several (N, C, ...) -> (N, their sum, ...)."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, 1)


class FlattenModule(nn.Flatten):
    """A `Flatten` layer: (N, C, H, W) -> (N, C H W)."""

    def __init__(self, _layer: Layer) -> None:
        super().__init__()


class MultiplyModule(LayerModule):
    """A `Multiply` layer."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return first * second


class PadModule(LayerModule):
    """A `Pad` layer: (N, C, H, W) -> the same with margins."""

    layer: Pad

    def forward(self, x: Tensor) -> Tensor:
        return padded(x, self.layer.pads)


class SoftmaxModule(nn.Softmax):
    """A `Softmax` layer: (N, C) -> the same."""

    def __init__(self, _layer: Layer) -> None:
        super().__init__(-1)


class WindowMaxModule(LayerModule):
    """A `WindowMax` layer: (N, C, H, W) -> (N, C, rows, columns)."""

    layer: WindowMax

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(padded(x, self.layer.pads, -inf), self.layer.kernel, self.layer.strides)


class WindowMeanModule(LayerModule):
    """A `WindowMean` layer: (N, C, H, W) -> (N, C, rows, columns)."""

    layer: WindowMean

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        mean = functional.avg_pool2d(padded(x, layer.pads), layer.kernel, layer.strides)
        return mean if not layer.rows else mean * torch.from_numpy(layer.factors())
