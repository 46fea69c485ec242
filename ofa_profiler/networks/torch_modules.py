"""Ops and networks as plain torch modules, built from the same layers that are profiled and exported.

Parameter names are those of `weights.py`, so a state_dict is what the exporters take.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.op import AvgPool, Conv, GlobalPool, Layer, Linear, MaxPool, Op, SqueezeExcite
from ofa_profiler.networks.parameters import COUNTER_SUFFIX, Array, Layout, Weights, check_weights

#: The module of each activation that a layer may name. ReLU in place: nothing else reads what comes before it.
ACTIVATIONS: dict[str | None, Callable[[], nn.Module]] = {
    None: nn.Identity,
    "": nn.Identity,
    "relu": partial(nn.ReLU, inplace=True),
    "relu6": nn.ReLU6,
    "h_swish": nn.Hardswish,
}


class ConvModule(nn.Sequential):
    """A `Conv` layer: (N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, layer: Conv) -> None:
        if layer.activation not in ACTIVATIONS:
            raise UsageError(f"no torch module for the activation {layer.activation!r}")
        conv = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            padding=layer.kernel_size // 2,
            groups=layer.groups,
            bias=layer.bias,
        )
        # Momentum is torch's own default, and that of the published networks.
        norm = nn.BatchNorm2d(layer.out_channels, eps=layer.epsilon) if layer.batch_norm else nn.Identity()
        super().__init__(OrderedDict(conv=conv, bn=norm, activation=ACTIVATIONS[layer.activation]()))


def spatial_mean(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 1, 1), summed in the order of the published networks.

    Rounding differences grow through a deep network; with the same order there are none to grow. `mean` computes the
    same, but its gradient fills a map, where that of `sum` is a view.
    """
    height, width = x.shape[2:]
    return (x.sum(3, keepdim=True) / width).sum(2, keepdim=True) / height


class SqueezeExciteModule(nn.Module):
    """A `SqueezeExcite` layer: (N, C, H, W) -> the same."""

    def __init__(self, layer: SqueezeExcite) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(layer.channels, layer.mid_channels, 1)
        self.expand = nn.Conv2d(layer.mid_channels, layer.channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * nn.functional.hardsigmoid(self.expand(nn.functional.relu(self.reduce(spatial_mean(x)))))


class GlobalPoolModule(nn.Module):
    """A `GlobalPool` layer: (N, C, H, W) -> (N, C, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return spatial_mean(x)


class LinearModule(nn.Linear):
    """A `Linear` layer: (N, in, 1, 1) -> (N, out)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in nn.Linear
        return super().forward(input.flatten(1))


def layer_module(layer: Layer) -> nn.Module:
    """The torch module of one layer."""
    match layer:
        case Conv():
            return ConvModule(layer)
        case SqueezeExcite():
            return SqueezeExciteModule(layer)
        case MaxPool():
            return nn.MaxPool2d(3, stride=2, padding=1)
        case AvgPool():
            return nn.AvgPool2d(2, ceil_mode=True)
        case GlobalPool():
            return GlobalPoolModule()
        case Linear():
            return LinearModule(layer.in_features, layer.out_features)
    raise TypeError(f"no torch module for the layer {layer!r}")


def run_op(op: Op, x: Tensor, run_layer: Callable[[Layer, Tensor], Tensor]) -> Tensor:
    """Run an op on (N, C, H, W): how its layers are put together. `run_layer` runs one of them."""
    y = x
    for layer in op.layers:
        y = run_layer(layer, y)
    if op.shortcut is not None:
        for layer in op.shortcut:
            x = run_layer(layer, x)
        y = x + y
    result: Tensor = ACTIVATIONS[op.final_activation]()(y)
    return result


class OpModule(nn.Module):
    """One op: (N, C, H, W) of `op.input_shape` -> the same of `op.output_shape`."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.op = op
        for layer in op.all_layers:
            self.add_module(layer.name, layer_module(layer))

    def forward(self, x: Tensor) -> Tensor:
        return run_op(self.op, x, lambda layer, y: self._modules[layer.name](y))  # type: ignore[misc]


class StaticNetwork(nn.Sequential):
    """A network, one `OpModule` per slot: images (N, 3, R, R) -> logits (N, classes)."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(OrderedDict((slot, OpModule(op)) for slot, op in layout))


def load_weights(module: nn.Module, weights: Weights) -> None:
    """Copy numpy weights into a module. Raises `UsageError` unless they are exactly its parameters."""
    own = {name: tensor for name, tensor in module.state_dict().items() if not name.endswith(COUNTER_SUFFIX)}
    check_weights({name: tuple(tensor.shape) for name, tensor in own.items()}, weights)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(torch.from_numpy(np.array(weights[name], dtype=np.float32)))


def to_weights(module: nn.Module) -> dict[str, Array]:
    """A copy of a module's parameters and BatchNorm statistics as float32 numpy arrays."""
    return {
        name: tensor.detach().to("cpu", torch.float32).numpy().copy()
        for name, tensor in module.state_dict().items()
        if not name.endswith(COUNTER_SUFFIX)
    }
