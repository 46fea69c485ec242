"""The ONNX nodes of the general layers. `onnx_layers.py` has those of the search spaces."""

from __future__ import annotations

import numpy as np

from ofa_profiler.export.onnx_graph import OnnxGraph
from ofa_profiler.networks.layers import (
    Activate,
    Affine,
    AnyConv,
    AsMap,
    ChannelShuffle,
    ChannelSlice,
    Concat,
    Flatten,
    Multiply,
    Pad,
    Softmax,
    WindowMax,
    WindowMean,
)
from ofa_profiler.networks.layers.tables import ONNX_LAYERS

#: The axis of channels in ONNX.
_CHANNELS = 1


@ONNX_LAYERS.register(Activate)
def _activate(graph: OnnxGraph, layer: Activate, name: str, tensor: str) -> str:
    return graph.add_activation(name, layer.activation, tensor)


@ONNX_LAYERS.register(Affine)
def _affine(graph: OnnxGraph, layer: Affine, name: str, tensor: str) -> str:
    """A BatchNormalization whose statistics change nothing: a single operator, which can be fused."""
    statistics = {"mean": np.zeros(layer.channels, np.float32), "variance": np.ones(layer.channels, np.float32)}
    inputs = [
        *(graph.add_parameter(f"{name}.{part}") for part in ("weight", "bias")),
        *(graph.add_constant(f"{name}.{part}", value) for part, value in statistics.items()),
    ]
    scaled = graph.add_node("BatchNormalization", [tensor, *inputs], name, epsilon=0.0)
    return graph.add_activation(name, layer.activation, scaled)


@ONNX_LAYERS.register(AnyConv)
def _any_conv(graph: OnnxGraph, layer: AnyConv, name: str, tensor: str) -> str:
    constants = [graph.add_constant(f"{name}.{part}", graph.weights[f"{name}.conv.{part}"]) for part in _PARAMETERS]
    convolved = graph.add_node(
        "Conv",
        [tensor, *constants],
        name,
        kernel_shape=list(layer.kernel),
        strides=list(layer.strides),
        pads=list(layer.pads),
        dilations=list(layer.dilations),
        group=layer.groups,
    )
    return graph.add_activation(name, layer.activation, convolved)


_PARAMETERS = ("weight", "bias")


@ONNX_LAYERS.register(AsMap)
def _as_map(graph: OnnxGraph, _layer: AsMap, name: str, tensor: str) -> str:
    return graph.add_node("Reshape", [tensor, graph.add_constant(f"{name}.shape", np.array([0, 0, 1, 1]))], name)


@ONNX_LAYERS.register(ChannelShuffle)
def _channel_shuffle(graph: OnnxGraph, layer: ChannelShuffle, name: str, tensor: str) -> str:
    height, width, channels = graph.shapes[name]

    def reshaped(source: str, part: str, *shape: int) -> str:
        constant = graph.add_constant(f"{name}.{part}_shape", np.array((graph.batch, *shape)))
        return graph.add_node("Reshape", [source, constant], f"{name}.{part}")

    groups = reshaped(tensor, "groups", layer.groups, channels // layer.groups, height, width)
    swapped = graph.add_node("Transpose", [groups], name, perm=[0, 2, 1, 3, 4])
    return reshaped(swapped, "shuffled", channels, height, width)


@ONNX_LAYERS.register(ChannelSlice)
def _channel_slice(graph: OnnxGraph, layer: ChannelSlice, name: str, tensor: str) -> str:
    limits = {"start": layer.start, "stop": layer.stop, "axis": _CHANNELS}
    constants = [graph.add_constant(f"{name}.{part}", np.array([value])) for part, value in limits.items()]
    return graph.add_node("Slice", [tensor, *constants], name)


@ONNX_LAYERS.register(Concat)
def _concat(graph: OnnxGraph, _layer: Concat, name: str, *tensors: str) -> str:
    return graph.add_node("Concat", list(tensors), name, axis=_CHANNELS)


@ONNX_LAYERS.register(Flatten)
def _flatten(graph: OnnxGraph, _layer: Flatten, name: str, tensor: str) -> str:
    return graph.add_node("Flatten", [tensor], name, axis=1)


@ONNX_LAYERS.register(Multiply)
def _multiply(graph: OnnxGraph, _layer: Multiply, name: str, first: str, second: str) -> str:
    return graph.add_node("Mul", [first, second], name)


@ONNX_LAYERS.register(Pad)
def _pad(graph: OnnxGraph, layer: Pad, name: str, tensor: str) -> str:
    top, left, bottom, right = layer.pads
    margins = graph.add_constant(f"{name}.margins", np.array([0, 0, top, left, 0, 0, bottom, right]))
    return graph.add_node("Pad", [tensor, margins], name)


@ONNX_LAYERS.register(Softmax)
def _softmax(graph: OnnxGraph, _layer: Softmax, name: str, tensor: str) -> str:
    return graph.add_node("Softmax", [tensor], name, axis=1)


def _window(layer: WindowMax | WindowMean) -> dict[str, list[int]]:
    return {"kernel_shape": list(layer.kernel), "strides": list(layer.strides), "pads": list(layer.pads)}


@ONNX_LAYERS.register(WindowMax)
def _window_max(graph: OnnxGraph, layer: WindowMax, name: str, tensor: str) -> str:
    return graph.add_node("MaxPool", [tensor], name, **_window(layer))


@ONNX_LAYERS.register(WindowMean)
def _window_mean(graph: OnnxGraph, layer: WindowMean, name: str, tensor: str) -> str:
    mean = graph.add_node("AveragePool", [tensor], name, count_include_pad=1, **_window(layer))
    if not layer.rows:
        return mean
    return graph.add_node("Mul", [mean, graph.add_constant(f"{name}.factors", layer.factors())], name)
