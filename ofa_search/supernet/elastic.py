"""Elastic layers: one set of weights that serves every choice a slot of the space leaves open.

A layer is told at each call which static layer of `ofa_profiler.networks.layers` it has to be (there is no
"current" subnet), and uses the first channels of its weights for it. Kernels smaller than the largest
are its centre, sent through learned matrices, 7 -> 5 -> 3 (arXiv 1908.09791, section 3.3).

`static(layer)` gives the very tensors that a plain module of that layer would hold, under its names:
the elastic forward runs on them, and a subnet is cut out by collecting them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.graph import Node
from ofa_profiler.networks.layers import (
    Add,
    AvgPool,
    Conv,
    Gelu,
    GlobalPool,
    Layer,
    LayerNorm,
    LayerTable,
    Linear,
    MaxPool,
    SelfAttention,
    SqueezeExcite,
)
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.torch_modules import activation_module, layer_module, run_graph, spatial_mean
from ofa_search.supernet.depthwise import depthwise_conv2d

L = TypeVar("L", bound=Layer)


class ElasticLayer(nn.Module, ABC, Generic[L]):
    """Can be any one of the layers that it was made for."""

    @abstractmethod
    def static(self, layer: L) -> dict[str, Tensor]:
        """The tensors of `layer`, views where possible, named as its plain module names them."""

    @abstractmethod
    def forward(self, x: Tensor, layer: L) -> Tensor:
        """Run `layer` on (N, C, H, W)."""


#: Layer type -> the elastic layer that can be any one of its choices.
ELASTIC_LAYERS: LayerTable[type[ElasticLayer[Any]]] = LayerTable("the elastic network")


class ElasticKernel(ElasticLayer[Conv]):
    """The convolution of a `Conv`, without what follows it.

    `weight` is (out, in / groups, k, k) of the largest choices. For every two neighbouring kernel
    sizes, `{large}to{small}_matrix` (small^2, small^2) maps the centre of the larger to the smaller.
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
            self.register_parameter(f"{large}to{small}_matrix", nn.Parameter(torch.empty(small**2, small**2)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation by the fan-out of one group; smaller kernels start as plain centres."""
        fan_out = self.kernel_sizes[0] ** 2 * (1 if self.depthwise else self.out_channels)
        nn.init.normal_(self.weight, 0.0, sqrt(2.0 / fan_out))
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        for large, small in pairwise(self.kernel_sizes):
            nn.init.eye_(self.get_parameter(f"{large}to{small}_matrix"))

    @torch.no_grad()
    def begin_as_smallest(self) -> None:
        """Let every choice compute what the smallest does: zero what larger ones add to it."""
        self.weight[:, self.least_inputs :] = 0.0
        if border := (self.kernel_sizes[0] - self.kernel_sizes[-1]) // 2:
            centre = self.weight[:, :, border:-border, border:-border]
            self.weight.copy_(functional.pad(centre, (border,) * 4))

    def static(self, layer: Conv) -> dict[str, Tensor]:
        weight = self.weight[: layer.out_channels, : layer.in_channels // layer.groups]
        for large, small in pairwise(self.kernel_sizes):
            if large <= layer.kernel_size:
                break
            border = (large - small) // 2
            centre = weight[:, :, border : border + small, border : border + small].flatten(2)
            matrix = self.get_parameter(f"{large}to{small}_matrix")
            weight = functional.linear(centre, matrix).reshape(*weight.shape[:2], small, small)
        tensors = {"weight": weight}
        if self.bias is not None:
            tensors["bias"] = self.bias[: layer.out_channels]
        return tensors

    def forward(self, x: Tensor, layer: Conv) -> Tensor:
        tensors = self.static(layer)
        if self.depthwise and self.training:
            return depthwise_conv2d(x, tensors["weight"], layer.stride)
        return functional.conv2d(
            x,
            tensors["weight"],
            tensors.get("bias"),
            stride=layer.stride,
            padding=layer.kernel_size // 2,
            groups=layer.groups,
        )


class ElasticBatchNorm(nn.Module):
    """BatchNorm over the first channels of the largest choice.

    In training mode it normalises with the statistics of the batch, and moves the running statistics of
    the channels in use towards them by `momentum`. Every subnet has statistics of its own, so the
    running ones are a mixture over the subnets that were trained lately: a subnet wants `recalibrate`.
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

    def static(self, channels: int) -> dict[str, Tensor]:
        """The four vectors of a BatchNorm over the first `channels` channels."""
        return {
            "weight": self.weight[:channels],
            "bias": self.bias[:channels],
            "running_mean": self.running_mean[:channels],
            "running_var": self.running_var[:channels],
        }

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) with any C up to the largest."""
        tensors = self.static(x.shape[1])
        return functional.batch_norm(x, **tensors, training=self.training, momentum=self.momentum, eps=self.epsilon)


@ELASTIC_LAYERS.register(Conv)
class ElasticConv(ElasticLayer[Conv]):
    """Convolution, BatchNorm if any, activation."""

    def __init__(self, choices: Sequence[Conv]) -> None:
        super().__init__()
        self.conv = ElasticKernel(choices)
        self.bn = ElasticBatchNorm(self.conv.out_channels, choices[0].epsilon) if choices[0].batch_norm else None
        self.activation = activation_module(choices[0].activation)

    def static(self, layer: Conv) -> dict[str, Tensor]:
        tensors = _prefixed("conv", self.conv.static(layer))
        return tensors if self.bn is None else tensors | _prefixed("bn", self.bn.static(layer.out_channels))

    def forward(self, x: Tensor, layer: Conv) -> Tensor:
        x = self.conv(x, layer)
        if self.bn is not None:
            x = self.bn(x)
        y: Tensor = self.activation(x)
        return y


@ELASTIC_LAYERS.register(SqueezeExcite)
class ElasticSqueezeExcite(ElasticLayer[SqueezeExcite]):
    """Channel attention. Its width in between follows the channels."""

    def __init__(self, choices: Sequence[SqueezeExcite]) -> None:
        super().__init__()
        pairs = [_squeeze_excite_convs(layer) for layer in choices]
        self.reduce = ElasticKernel([reduce for reduce, _ in pairs])
        self.expand = ElasticKernel([expand for _, expand in pairs])

    def static(self, layer: SqueezeExcite) -> dict[str, Tensor]:
        reduce, expand = _squeeze_excite_convs(layer)
        return _prefixed("reduce", self.reduce.static(reduce)) | _prefixed("expand", self.expand.static(expand))

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
        """Uniform in +-1/sqrt(inputs), no bias."""
        bound = 1.0 / sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)

    @torch.no_grad()
    def begin_as_smallest(self) -> None:
        """As in `ElasticKernel`."""
        self.weight[:, self.least_inputs :] = 0.0

    def static(self, layer: Linear) -> dict[str, Tensor]:
        return {"weight": self.weight[:, : layer.in_features], "bias": self.bias}

    def forward(self, x: Tensor, layer: Linear) -> Tensor:
        return functional.linear(x.flatten(1), self.weight[:, : layer.in_features], self.bias)


class SharedLayer(ElasticLayer[Layer]):
    """A layer without parameters: the plain module serves all choices."""

    def __init__(self, choices: Sequence[Layer]) -> None:
        super().__init__()
        self.module = layer_module(choices[0])

    def static(self, layer: Layer) -> dict[str, Tensor]:  # noqa: ARG002
        return {}

    def forward(self, *inputs: Any) -> Tensor:
        """Run it on tensors; the last argument is the layer."""
        y: Tensor = self.module(*inputs[:-1])
        return y


class FixedLayer(ElasticLayer[Layer]):
    """A layer with parameters that a space leaves no choice of. Raises `UsageError` if there is one."""

    def __init__(self, choices: Sequence[Layer]) -> None:
        super().__init__()
        if len(set(choices)) > 1:
            raise UsageError(f"layer {choices[0].name}: a {type(choices[0]).__name__} cannot be elastic")
        self.module = layer_module(choices[0])

    def static(self, layer: Layer) -> dict[str, Tensor]:  # noqa: ARG002
        return dict(self.module.state_dict(keep_vars=True))

    def forward(self, x: Tensor, layer: Layer) -> Tensor:  # noqa: ARG002
        y: Tensor = self.module(x)
        return y


for _shared in (Add, AvgPool, Gelu, GlobalPool, MaxPool):
    ELASTIC_LAYERS.register(_shared)(SharedLayer)
for _fixed in (LayerNorm, SelfAttention):
    ELASTIC_LAYERS.register(_fixed)(FixedLayer)


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


class ElasticOp(nn.Module):
    """Any one of the ops that a slot of a space can hold; one child per layer."""

    def __init__(self, choices: Sequence[Op]) -> None:
        super().__init__()
        by_name: dict[str, dict[Layer, None]] = {}
        for op in choices:
            for node in op.graph.nodes:
                by_name.setdefault(node.name, {})[node.layer] = None
        for name, layers in by_name.items():
            elastic = ELASTIC_LAYERS[type(next(iter(layers)))]
            self.add_module(name, elastic(list(layers)))

    def elastic_layer(self, name: str) -> ElasticLayer[Any]:
        """The child that serves the layers of this name."""
        child = self._modules[name]
        assert isinstance(child, ElasticLayer)
        return child

    def static(self, op: Op) -> dict[str, Tensor]:
        """The tensors of `op`, named as `OpModule` names them."""
        tensors: dict[str, Tensor] = {}
        for node in op.graph.nodes:
            tensors |= _prefixed(node.name, self.elastic_layer(node.name).static(node.layer))
        return tensors

    def forward(self, x: Tensor, op: Op) -> Tensor:
        """Run `op` on (N, C, H, W)."""

        def run_node(node: Node, *inputs: Tensor) -> Tensor:
            result: Tensor = self.elastic_layer(node.name)(*inputs, node.layer)
            return result

        return run_graph(op.graph, x, run_node)
