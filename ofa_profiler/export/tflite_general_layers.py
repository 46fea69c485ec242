"""The TFLite nodes of the general layers. `tflite_layers.py` has those of the search spaces."""

from __future__ import annotations

import numpy as np

from ofa_profiler.export.tflite_graph import SAME, VALID, TfliteGraph
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
from ofa_profiler.networks.layers.any_conv import NO_MARGINS, Margins, Pair
from ofa_profiler.networks.layers.tables import TFLITE_LAYERS
from ofa_profiler.networks.parameters import Array
from ofa_profiler.networks.tensors import Shape

_PLAIN = {"FusedActivationFunction": 0}
#: Below all values: the maximum never takes it.
_LOWEST = np.finfo(np.float32).min


@TFLITE_LAYERS.register(Activate)
def _activate(graph: TfliteGraph, layer: Activate, name: str, tensor: str) -> str:
    if layer.activation in _ALONE:
        return graph.add_node(_ALONE[layer.activation], [tensor], name, graph.shapes[tensor])
    return graph.add_activation(layer.activation, name, tensor)


#: The operators of activations that other nodes include.
_ALONE = {"relu": "RELU", "relu6": "RELU6"}


@TFLITE_LAYERS.register(Affine)
def _affine(graph: TfliteGraph, layer: Affine, name: str, tensor: str) -> str:
    """On maps, a depthwise 1 x 1 convolution, which takes half the time of MUL and ADD (AMD EPYC, LiteRT 2.3)."""
    shape = graph.shapes[tensor]
    if len(shape) == 4:
        weight, bias = (graph.weights[f"{name}.{part}"] for part in ("weight", "bias"))
        weight = weight.reshape(-1, 1, 1, 1)
        return graph.add_conv(name, tensor, weight, bias, layer.activation, is_depthwise=True)
    scaled = graph.add_active("MUL", [tensor, graph.add_parameter(f"{name}.weight")], f"{name}.scaled", shape)
    return graph.add_active("ADD", [scaled, graph.add_parameter(f"{name}.bias")], name, shape, layer.activation)


def _same_margins(shape: Shape, kernel: Pair, strides: Pair, dilations: Pair = (1, 1)) -> Margins:
    """The margins of TFLite's "same" padding, for a map (N, H, W, C)."""

    def ends(size: int, kernel: int, stride: int, dilation: int) -> Pair:
        total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        return total // 2, total - total // 2

    (top, bottom), (left, right) = map(ends, shape[1:3], kernel, strides, dilations)
    return top, left, bottom, right


def _with_margins(graph: TfliteGraph, tensor: str, name: str, pads: Margins, same: Margins) -> tuple[str, int]:
    """The tensor, padded with zeros if TFLite's own padding is another one, and the padding of the operator."""
    if pads == NO_MARGINS:
        return tensor, VALID
    if pads == same:
        return tensor, SAME
    return graph.add_margins("PAD", tensor, f"{name}.pads", pads), VALID


@TFLITE_LAYERS.register(AnyConv)
def _any_conv(graph: TfliteGraph, layer: AnyConv, name: str, tensor: str) -> str:
    weight, bias = (graph.weights[f"{name}.conv.{part}"] for part in ("weight", "bias"))
    same = _same_margins(graph.shapes[tensor], layer.kernel, layer.strides, layer.dilations)
    shape = (graph.shapes[tensor][0], *layer.output_shape(graph.shapes[tensor][1:]))
    tensor, padding = _with_margins(graph, tensor, name, layer.pads, same)
    options = {"Padding": padding, "StrideH": layer.strides[0], "StrideW": layer.strides[1]}
    if layer.dilations != (1, 1):
        options |= {"DilationHFactor": layer.dilations[0], "DilationWFactor": layer.dilations[1]}

    def inputs(axes: Shape) -> list[str]:
        constants = {f"{name}.weight": weight.transpose(axes), f"{name}.bias": bias}
        return [tensor, *(graph.add_constant(part, value) for part, value in constants.items())]

    if layer.groups > 1 and layer.groups == layer.in_channels:
        options["DepthMultiplier"] = layer.out_channels // layer.in_channels
        return graph.add_active("DEPTHWISE_CONV_2D", inputs((1, 2, 3, 0)), name, shape, layer.activation, **options)
    return graph.add_active("CONV_2D", inputs((0, 2, 3, 1)), name, shape, layer.activation, **options)


def _reshaped(graph: TfliteGraph, tensor: str, name: str, shape: Shape) -> str:
    return graph.add_node(
        "RESHAPE", [tensor, graph.add_constant(f"{name}.shape", np.array(shape, np.int32))], name, shape
    )


def _transposed(graph: TfliteGraph, tensor: str, name: str, axes: Shape) -> str:
    order = graph.add_constant("_".join(map(str, ("order", *axes))), np.array(axes, np.int32))
    return graph.add_node("TRANSPOSE", [tensor, order], name, tuple(graph.shapes[tensor][axis] for axis in axes))


@TFLITE_LAYERS.register(AsMap)
def _as_map(graph: TfliteGraph, _layer: AsMap, name: str, tensor: str) -> str:
    batch, channels = graph.shapes[tensor]
    return _reshaped(graph, tensor, name, (batch, 1, 1, channels))


@TFLITE_LAYERS.register(ChannelShuffle)
def _channel_shuffle(graph: TfliteGraph, layer: ChannelShuffle, name: str, tensor: str) -> str:
    batch, height, width, channels = graph.shapes[tensor]
    # Pixels are one axis, because XNNPACK does not take more than four.
    shape = (batch, height * width, layer.groups, channels // layer.groups)
    swapped = _transposed(graph, _reshaped(graph, tensor, f"{name}.groups", shape), name, (0, 1, 3, 2))
    return _reshaped(graph, swapped, f"{name}.shuffled", (batch, height, width, channels))


@TFLITE_LAYERS.register(ChannelSlice)
def _channel_slice(graph: TfliteGraph, layer: ChannelSlice, name: str, tensor: str) -> str:
    *others, _ = graph.shapes[tensor]
    shape = (*others, layer.stop - layer.start)
    begin = graph.add_constant(f"{name}.begin", np.array([*[0] * len(others), layer.start], np.int32))
    size = graph.add_constant(f"{name}.size", np.array(shape, np.int32))
    return graph.add_node("SLICE", [tensor, begin, size], name, shape)


@TFLITE_LAYERS.register(Concat)
def _concat(graph: TfliteGraph, _layer: Concat, name: str, *tensors: str) -> str:
    *others, _ = graph.shapes[tensors[0]]
    shape = (*others, sum(graph.shapes[tensor][-1] for tensor in tensors))
    return graph.add_node("CONCATENATION", list(tensors), name, shape, Axis=len(others), **_PLAIN)


@TFLITE_LAYERS.register(Flatten)
def _flatten(graph: TfliteGraph, _layer: Flatten, name: str, tensor: str) -> str:
    batch, height, width, channels = graph.shapes[tensor]
    if height * width > 1:
        tensor = _transposed(graph, tensor, f"{name}.channels", (0, 3, 1, 2))
    return _reshaped(graph, tensor, name, (batch, height * width * channels))


@TFLITE_LAYERS.register(Multiply)
def _multiply(graph: TfliteGraph, _layer: Multiply, name: str, first: str, second: str) -> str:
    shape = tuple(map(max, graph.shapes[first], graph.shapes[second]))
    return graph.add_active("MUL", [first, second], name, shape)


@TFLITE_LAYERS.register(Pad)
def _pad(graph: TfliteGraph, layer: Pad, name: str, tensor: str) -> str:
    return graph.add_margins("PAD", tensor, name, layer.pads)


@TFLITE_LAYERS.register(Softmax)
def _softmax(graph: TfliteGraph, _layer: Softmax, name: str, tensor: str) -> str:
    return graph.add_node("SOFTMAX", [tensor], name, graph.shapes[tensor], Beta=1)


def _pooled(
    graph: TfliteGraph, operator: str, layer: WindowMax | WindowMean, name: str, tensor: str, padding: int, shape: Shape
) -> str:
    sizes = dict(zip(("StrideH", "StrideW", "FilterHeight", "FilterWidth"), layer.strides + layer.kernel, strict=True))
    return graph.add_active(operator, [tensor], name, shape, Padding=padding, **sizes)


@TFLITE_LAYERS.register(WindowMax)
def _window_max(graph: TfliteGraph, layer: WindowMax, name: str, tensor: str) -> str:
    before = graph.shapes[tensor]
    padding = SAME if layer.pads == _same_margins(before, layer.kernel, layer.strides) else VALID
    if padding == VALID and layer.pads != NO_MARGINS:
        # XNNPACK supports PAD, but not PADV2.
        if layer.nonnegative:
            tensor = graph.add_margins("PAD", tensor, f"{name}.pads", layer.pads)
        else:
            lowest = graph.add_constant("lowest", np.array(_LOWEST, np.float32))
            tensor = graph.add_margins("PADV2", tensor, f"{name}.pads", layer.pads, lowest)
    return _pooled(graph, "MAX_POOL_2D", layer, name, tensor, padding, (before[0], *layer.output_shape(before[1:])))


@TFLITE_LAYERS.register(WindowMean)
def _window_mean(graph: TfliteGraph, layer: WindowMean, name: str, tensor: str) -> str:
    before = graph.shapes[tensor]
    shape = (before[0], *layer.output_shape(before[1:]))
    if layer.pads == _same_margins(before, layer.kernel, layer.strides) and layer.counts_inside(before[1:]):
        return _pooled(graph, "AVERAGE_POOL_2D", layer, name, tensor, SAME, shape)
    if layer.pads != NO_MARGINS:
        tensor = graph.add_margins("PAD", tensor, f"{name}.pads", layer.pads)
    mean = _pooled(graph, "AVERAGE_POOL_2D", layer, name, tensor, VALID, shape)
    if not layer.rows:
        return mean
    factors: Array = layer.factors()[None, :, :, None]
    return graph.add_active("MUL", [mean, graph.add_constant(f"{name}.factors", factors)], f"{name}.mean", shape)
