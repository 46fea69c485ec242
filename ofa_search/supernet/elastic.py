"""Elastic layers: one set of weights serves all choices of a slot of the space.

Each call names the static layer of `ofa_profiler.networks.layers` that the elastic layer computes, so there is no
"current" subnet. The elastic layer uses the tensors that `subnet_weights.cut` returns for that layer. An extracted
subnet has the same tensors. Layers without parameters, and layers that no space varies, are plain modules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import chain, pairwise
from math import sqrt
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ofa_profiler.errors import UsageError
from ofa_profiler.networks import layers
from ofa_profiler.networks.graph import Node
from ofa_profiler.networks.layers import (
    Add,
    AvgPool,
    Conv,
    Gelu,
    GlobalPool,
    Layer,
    LayerNorm,
    Linear,
    MaxPool,
    SelfAttention,
    SqueezeExcite,
)
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.torch_modules import activation_module, layer_module, run_graph, spatial_mean
from ofa_search.supernet.depthwise import depthwise_conv2d
from ofa_search.supernet.elastic_table import ELASTIC_LAYERS
from ofa_search.supernet.subnet_weights import cut, matrix_name

L = TypeVar("L", bound=Layer)


class ElasticLayer(nn.Module, ABC, Generic[L]):
    """A module that computes every layer that it was built for."""

    @abstractmethod
    def forward(self, x: Tensor, layer: L) -> Tensor:
        """Run `layer` on (N, C, H, W)."""


class ElasticKernel(ElasticLayer[Conv]):
    """The convolution of a `Conv`, without BatchNorm and activation.

    `weight` is (out, in / groups, k, k) of the largest choices. For every two neighbouring kernel
    sizes, a matrix (small^2, small^2) maps the centre of the larger kernel to the smaller one.
    """

    def __init__(self, choices: Sequence[Conv]) -> None:
        super().__init__()
        self.kernel_sizes = sorted({c.kernel_size for c in choices}, reverse=True)
        self.out_channels = max(c.out_channels for c in choices)
        self.depthwise = choices[0].groups > 1
        size = self.kernel_sizes[0]
        inputs = {c.in_channels // c.groups for c in choices}
        self.least_inputs = min(inputs)
        self.weight = nn.Parameter(torch.empty(self.out_channels, max(inputs), size, size))
        self.bias = nn.Parameter(torch.empty(self.out_channels)) if choices[0].bias else None
        for large, small in pairwise(self.kernel_sizes):
            self.register_parameter(matrix_name(large, small), nn.Parameter(torch.empty(small**2, small**2)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise by He, with the fan-out of one group; a smaller kernel starts as the centre of a larger one."""
        fan_out = self.kernel_sizes[0] ** 2 * (1 if self.depthwise else self.out_channels)
        nn.init.normal_(self.weight, 0.0, sqrt(2.0 / fan_out))
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        for large, small in pairwise(self.kernel_sizes):
            nn.init.eye_(self.get_parameter(matrix_name(large, small)))

    @torch.no_grad()
    def begin_as_smallest(self) -> None:
        """Make every choice compute the same as the smallest: zero the weights that only larger choices have."""
        self.weight[:, self.least_inputs :] = 0.0
        if border := (self.kernel_sizes[0] - self.kernel_sizes[-1]) // 2:
            centre = self.weight[:, :, border:-border, border:-border]
            self.weight.copy_(functional.pad(centre, (border,) * 4))

    def forward(self, x: Tensor, layer: Conv) -> Tensor:
        tensors = dict(self.named_parameters())
        size = layer.kernel_size
        weight = cut(tensors, "weight", (layer.out_channels, layer.in_channels // layer.groups, size, size))
        if self.depthwise and self.training:
            return depthwise_conv2d(x, weight, layer.stride)
        return functional.conv2d(
            x,
            weight,
            None if self.bias is None else cut(tensors, "bias", (layer.out_channels,)),
            stride=layer.stride,
            padding=layer.kernel_size // 2,
            groups=layer.groups,
        )


class ElasticBatchNorm(nn.Module):
    """BatchNorm over the first channels of the largest choice.

    In training mode it normalises with the statistics of the batch, and updates the running statistics of the channels
    in use by `momentum`. Each subnet would need its own statistics. The running ones mix those of the recently trained
    subnets, so an extracted subnet needs `recalibrate`.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, epsilon: float, momentum: float = 0.1) -> None:
        super().__init__()
        self.epsilon, self.momentum = epsilon, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) with any C up to the largest."""
        shared: dict[str, Tensor] = dict(chain(self.named_parameters(), self.named_buffers()))
        tensors = {name: cut(shared, name, (x.shape[1],)) for name in shared}
        return functional.batch_norm(x, **tensors, training=self.training, momentum=self.momentum, eps=self.epsilon)


@ELASTIC_LAYERS.register(Conv)
class ElasticConv(ElasticLayer[Conv]):
    """Convolution, BatchNorm if any, activation."""

    def __init__(self, choices: Sequence[Conv]) -> None:
        super().__init__()
        self.conv = ElasticKernel(choices)
        self.bn = ElasticBatchNorm(self.conv.out_channels, choices[0].epsilon) if choices[0].batch_norm else None
        self.activation = activation_module(choices[0].activation)

    def forward(self, x: Tensor, layer: Conv) -> Tensor:
        x = self.conv(x, layer)
        if self.bn is not None:
            x = self.bn(x)
        y: Tensor = self.activation(x)
        return y


@ELASTIC_LAYERS.register(SqueezeExcite)
class ElasticSqueezeExcite(ElasticLayer[SqueezeExcite]):
    """Channel attention. The width between its two convolutions follows from the channels."""

    def __init__(self, choices: Sequence[SqueezeExcite]) -> None:
        super().__init__()
        pairs = [_squeeze_excite_convs(layer) for layer in choices]
        self.reduce = ElasticKernel([reduce for reduce, _ in pairs])
        self.expand = ElasticKernel([expand for _, expand in pairs])

    def forward(self, x: Tensor, layer: SqueezeExcite) -> Tensor:
        reduce, expand = _squeeze_excite_convs(layer)
        squeezed = functional.relu(self.reduce(spatial_mean(x), reduce))
        return x * functional.hardsigmoid(self.expand(squeezed, expand))


def _squeeze_excite_convs(layer: SqueezeExcite) -> tuple[Conv, Conv]:
    return (
        Conv("reduce", layer.channels, layer.mid_channels, bias=True, batch_norm=False),
        Conv("expand", layer.mid_channels, layer.channels, bias=True, batch_norm=False),
    )


@ELASTIC_LAYERS.register(Linear)
class ElasticLinear(ElasticLayer[Linear]):
    """A fully connected layer over the first input features."""

    def __init__(self, choices: Sequence[Linear]) -> None:
        super().__init__()
        features = {c.in_features for c in choices}
        self.least_inputs = min(features)
        self.weight = nn.Parameter(torch.empty(choices[0].out_features, max(features)))
        self.bias = nn.Parameter(torch.empty(choices[0].out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise uniformly in +-1/sqrt(inputs), with the bias at zero."""
        bound = 1.0 / sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)

    @torch.no_grad()
    def begin_as_smallest(self) -> None:
        """Make every choice compute the same as the smallest, as in `ElasticKernel`."""
        self.weight[:, self.least_inputs :] = 0.0

    def forward(self, x: Tensor, layer: Linear) -> Tensor:
        weight = cut(dict(self.named_parameters()), "weight", (layer.out_features, layer.in_features))
        return functional.linear(x.flatten(1), weight, self.bias)


def shared_layer(choices: Sequence[Layer]) -> nn.Module:
    """Return the plain module of a layer without parameters. It computes all choices."""
    return layer_module(choices[0])


def fixed_layer(choices: Sequence[Layer]) -> nn.Module:
    """Return the plain module of a layer with parameters. Raises `UsageError` if the space varies the layer."""
    if len(set(choices)) > 1:
        raise UsageError(f"layer {choices[0].name}: a {type(choices[0]).__name__} cannot be elastic")
    return layer_module(choices[0])


for _shared in (
    *(layers.Activate, Add, layers.AsMap, AvgPool, layers.ChannelShuffle, layers.ChannelSlice, layers.Concat),
    *(layers.Flatten, Gelu, GlobalPool, MaxPool, layers.Multiply, layers.Pad, layers.Softmax, layers.WindowMax),
    layers.WindowMean,
):
    ELASTIC_LAYERS.register(_shared)(shared_layer)
for _fixed in (layers.Affine, layers.AnyConv, LayerNorm, SelfAttention):
    ELASTIC_LAYERS.register(_fixed)(fixed_layer)


class ElasticOp(nn.Module):
    """A module that computes every op of a slot of the space; it has one child per layer."""

    def __init__(self, choices: Sequence[Op]) -> None:
        super().__init__()
        by_name: dict[str, dict[Layer, None]] = {}
        for op in choices:
            for node in op.graph.nodes:
                by_name.setdefault(node.name, {})[node.layer] = None
        for name, choices_of_layer in by_name.items():
            elastic = ELASTIC_LAYERS[type(next(iter(choices_of_layer)))]
            self.add_module(name, elastic(list(choices_of_layer)))

    def child(self, name: str) -> nn.Module:
        """Return the module that computes the layers of this name."""
        return self.get_submodule(name)

    def forward(self, x: Tensor, op: Op) -> Tensor:
        """Run `op` on (N, C, H, W)."""

        def run_node(node: Node, *inputs: Tensor) -> Tensor:
            child = self.child(node.name)
            result: Tensor = child(*inputs, node.layer) if isinstance(child, ElasticLayer) else child(*inputs)
            return result

        return run_graph(op.graph, (x,), run_node)
