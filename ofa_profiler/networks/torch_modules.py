"""Ops and networks as torch modules.

Their parameters have the names of `parameters.py`, so exporters accept their state_dict (as numpy arrays).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ofa_profiler.networks import layers
from ofa_profiler.networks.blocks import Layout
from ofa_profiler.networks.graph import Graph, Node
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
from ofa_profiler.networks.layers.activations import get_activation
from ofa_profiler.networks.layers.tables import TORCH_LAYERS
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.parameters import COUNTER_SUFFIX, Array, Weights, check_weights


def activation_module(name: str) -> nn.Module:
    """The module of an activation. ReLU is in place, because no other module reads its input."""
    kind = getattr(nn, get_activation(name).torch)
    module: nn.Module = kind(inplace=True) if kind is nn.ReLU else kind()
    return module


@TORCH_LAYERS.register(Conv)
class ConvModule(nn.Sequential):
    """A `Conv` layer: (N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, layer: Conv) -> None:
        conv = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            padding=layer.kernel_size // 2,
            groups=layer.groups,
            bias=layer.bias,
        )
        # The momentum is torch's default, which the published networks use too.
        norm = nn.BatchNorm2d(layer.out_channels, eps=layer.epsilon) if layer.batch_norm else nn.Identity()
        super().__init__(OrderedDict(conv=conv, bn=norm, activation=activation_module(layer.activation)))


def spatial_mean(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 1, 1). The order of the sums is that of the published networks.

    With another order, rounding differences would grow through a deep network. `mean` computes the same, but its
    gradient allocates a map, and the gradient of `sum` is a view.
    """
    height, width = x.shape[2:]
    return (x.sum(3, keepdim=True) / width).sum(2, keepdim=True) / height


@TORCH_LAYERS.register(SqueezeExcite)
class SqueezeExciteModule(nn.Module):
    """A `SqueezeExcite` layer: (N, C, H, W) -> the same."""

    def __init__(self, layer: SqueezeExcite) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(layer.channels, layer.mid_channels, 1)
        self.expand = nn.Conv2d(layer.mid_channels, layer.channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * nn.functional.hardsigmoid(self.expand(nn.functional.relu(self.reduce(spatial_mean(x)))))


@TORCH_LAYERS.register(MaxPool)
def _max_pool(_layer: MaxPool) -> nn.Module:
    return nn.MaxPool2d(3, stride=2, padding=1)


@TORCH_LAYERS.register(AvgPool)
def _avg_pool(_layer: AvgPool) -> nn.Module:
    return nn.AvgPool2d(2, ceil_mode=True)


@TORCH_LAYERS.register(GlobalPool)
class GlobalPoolModule(nn.Module):
    """A `GlobalPool` layer: (N, C, H, W) -> (N, C, 1, 1)."""

    def __init__(self, _layer: GlobalPool) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return spatial_mean(x)


@TORCH_LAYERS.register(Linear)
class LinearModule(nn.Linear):
    """A `Linear` layer: (N, in, 1, 1) -> (N, out)."""

    def __init__(self, layer: Linear) -> None:
        super().__init__(layer.in_features, layer.out_features)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in nn.Linear
        return super().forward(input.flatten(1))


@TORCH_LAYERS.register(Add)
class AddModule(nn.Module):
    """An `Add` layer: two tensors of the same shape -> the same."""

    def __init__(self, layer: Add) -> None:
        super().__init__()
        self.activation = activation_module(layer.activation)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        y: Tensor = self.activation(first + second)
        return y


@TORCH_LAYERS.register(LayerNorm)
def _layer_norm(layer: LayerNorm) -> nn.Module:
    return nn.LayerNorm(layer.channels, eps=layer.epsilon)


@TORCH_LAYERS.register(Gelu)
def _gelu(_layer: Gelu) -> nn.Module:
    return nn.GELU()


@TORCH_LAYERS.register(SelfAttention)
class SelfAttentionModule(nn.Module):
    """A `SelfAttention` layer: (N, length, C) -> the same."""

    def __init__(self, layer: SelfAttention) -> None:
        super().__init__()
        self.heads = layer.heads
        self.qkv = nn.Linear(layer.channels, 3 * layer.channels)
        self.out = nn.Linear(layer.channels, layer.channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, channels = x.shape
        parts = self.qkv(x).reshape(batch, length, 3, self.heads, channels // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)  # each (N, heads, length, channels / heads)
        attended = nn.functional.scaled_dot_product_attention(queries, keys, values)
        y: Tensor = self.out(attended.transpose(1, 2).reshape(batch, length, channels))
        return y


for _general in (
    *(layers.Activate, layers.Affine, layers.AnyConv, layers.AsMap, layers.ChannelShuffle, layers.ChannelSlice),
    *(layers.Concat, layers.Flatten, layers.Multiply, layers.Pad, layers.Softmax, layers.WindowMax, layers.WindowMean),
):
    TORCH_LAYERS.register(_general)(f"ofa_profiler.networks.torch_general_modules:{_general.__name__}Module")


def layer_module(layer: Layer) -> nn.Module:
    """The torch module of one layer."""
    module: nn.Module = TORCH_LAYERS[type(layer)](layer)
    return module


def run_graph(graph: Graph, inputs: Sequence[Tensor], run_node: Callable[..., Tensor]) -> Tensor:
    """Run a graph with one input and one output, by `run_node(node, *tensors)`, and return its output."""
    (output,) = graph.run({tensor.name: x for tensor, x in zip(graph.inputs, inputs, strict=True)}, run_node)
    return output


class GraphModule(nn.Module):
    """A graph with one input and one output, one child per node."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph
        for node in graph.nodes:
            self.add_module(node.name, layer_module(node.layer))

    def forward(self, *inputs: Tensor) -> Tensor:
        return run_graph(self._graph, inputs, self._run_node)

    def _run_node(self, node: Node, *tensors: Tensor) -> Tensor:
        y: Tensor = self._modules[node.name](*tensors)  # type: ignore[misc]
        return y


class OpModule(GraphModule):
    """One op: (N, C, H, W) of `op.input_shape` -> the same of `op.output_shape`."""

    def __init__(self, op: Op) -> None:
        super().__init__(op.graph)
        self.op = op


class StaticNetwork(nn.Sequential):
    """A network, one `OpModule` per slot: images (N, 3, R, R) -> logits (N, classes)."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(OrderedDict((slot, OpModule(op)) for slot, op in layout))


def load_weights(module: nn.Module, weights: Weights) -> None:
    """Copy numpy weights into a module. Raises `UsageError` unless names and shapes match exactly."""
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
