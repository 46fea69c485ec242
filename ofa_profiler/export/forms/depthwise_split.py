"""LiteRT: a depthwise 7 x 7 convolution as the sum of three smaller ones.

XNNPACK has fast depthwise kernels for at most 25 taps; above, it takes a slow path. Seen to win on every shape:
4.9 to 7.8 times for the layer, 3 times for networks with many of them (AMD EPYC, LiteRT 2.3).

The 49 taps are divided into parts of 21, 20 and 8 taps (25-, 25- and 9-tap kernels), each of which is a dilated
convolution with the same centre, so each keeps its "same" padding:

    rows 1, 3, 5 x all columns;  rows 0, 2, 4, 6 x columns 1 to 5;  rows 0, 2, 4, 6 x columns 0, 6

In int8, each part and the sum of the first two have a range of their own (`part0`, `part1`, `part2`, `sum1`). It is
calibrated, or else bounded by weights and input.
"""

from __future__ import annotations

import numpy as np

from ofa_profiler.export.forms.base import Form, register_form
from ofa_profiler.export.onnx_graph import OnnxGraph
from ofa_profiler.export.tflite_graph import SAME, VALID, TfliteGraph
from ofa_profiler.networks.layers import Conv
from ofa_profiler.networks.layers.conv import strided
from ofa_profiler.networks.parameters import Array, folded_conv

_KERNEL_SIZE = 7
#: Rows and columns of the kernel in each part.
PARTS = (
    (slice(1, 6, 2), slice(0, 7, 1)),
    (slice(0, 7, 2), slice(1, 6, 1)),
    (slice(0, 7, 2), slice(0, 7, 6)),
)


def _group(layer: Conv) -> str | None:
    is_depthwise = layer.groups == layer.in_channels == layer.out_channels > 1
    if not is_depthwise or layer.kernel_size != _KERNEL_SIZE:
        return None
    return f"depthwise 7x7, stride {layer.stride}"


def _write(graph: TfliteGraph, layer: Conv, name: str, tensor: str) -> str:
    weight, bias = folded_conv(layer, name, graph.weights)
    zeros = np.zeros(layer.out_channels, np.float32)
    biases = [zeros if bias is None else bias, zeros, zeros]
    total = ""
    for i, (part, part_bias) in enumerate(zip(PARTS, biases, strict=True)):
        product = _add_part(graph, f"{name}.part{i}", tensor, weight, part_bias, layer.stride, part)
        graph.marks.add(product, f"{name}.part{i}")
        if i == len(PARTS) - 1:
            return graph.add_active("ADD", [total, product], name, graph.shapes[product], layer.activation)
        if total:
            product = graph.add_active("ADD", [total, product], f"{name}.sum{i}", graph.shapes[product])
            graph.marks.add(product, f"{name}.sum{i}")
        total = product
    return total


def _add_part(
    graph: TfliteGraph, name: str, tensor: str, weight: Array, bias: Array, stride: int, part: tuple[slice, slice]
) -> str:
    """Add the convolution with the taps of one part."""
    rows, columns = part
    batch, height, width, channels = graph.shapes[tensor]
    padding = SAME
    if stride > 1:  # as in `TfliteGraph.add_conv`
        margins = tuple(_KERNEL_SIZE // 2 - taps.start for taps in part)
        padding, tensor = VALID, graph.add_pad("PAD", tensor, f"{name}.pads", *margins)
    taps = weight[:, :, rows, columns].transpose(1, 2, 3, 0)
    inputs = [tensor, graph.add_constant(f"{name}.weight", taps), graph.add_constant(f"{name}.bias", bias)]
    return graph.add_active(
        "DEPTHWISE_CONV_2D",
        inputs,
        name,
        (batch, strided(height, stride), strided(width, stride), channels),
        "",
        Padding=padding,
        StrideW=stride,
        StrideH=stride,
        DilationHFactor=rows.step,
        DilationWFactor=columns.step,
        DepthMultiplier=1,
    )


def _observe(graph: OnnxGraph, layer: Conv, name: str, tensor: str) -> None:
    """Add the parts as convolutions whose other taps are zero."""
    weight, bias = folded_conv(layer, name, graph.weights)
    total = ""
    for i, (rows, columns) in enumerate(PARTS):
        masked = np.zeros_like(weight)
        masked[:, :, rows, columns] = weight[:, :, rows, columns]
        part = f"{name}.part{i}"
        product = graph.add_conv(part, tensor, masked, None if i else bias, layer.stride, layer.groups)
        graph.marks.add(product, part)
        if 0 < i < len(PARTS) - 1:
            graph.marks.add(graph.add_node("Add", [total, product], f"{name}.sum{i}"), f"{name}.sum{i}")
        total = product


register_form(Form("split", "litert", Conv, _group, _write, ("fp32", "int8"), _observe))
