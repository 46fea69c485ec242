"""LiteRT, int8: the mean of 2 x 2 windows as a depthwise convolution, whose weights are all 1/4.

XNNPACK has no int8 AVERAGE_POOL_2D. It runs in another kernel, and divides the network. A window at the edge of an odd
map has fewer pixels than four, so such a map keeps the pooling.
"""

from __future__ import annotations

import numpy as np

from ofa_profiler.export.forms.base import Form, register_form
from ofa_profiler.export.tflite_graph import SAME, VALID, TfliteGraph
from ofa_profiler.networks.layers import AvgPool


def _group(_layer: AvgPool) -> str | None:
    return "average pooling"


def _write(graph: TfliteGraph, _layer: AvgPool, name: str, tensor: str) -> str:
    batch, height, width, channels = graph.shapes[tensor]
    if height % 2 or width % 2:
        return graph.add_pool("AVERAGE_POOL_2D", tensor, name, 2, SAME)
    inputs = [
        tensor,
        graph.add_constant(f"{name}.weight", np.full((1, 2, 2, channels), 1 / 4, np.float32)),
        graph.add_constant(f"{name}.bias", np.zeros(channels, np.float32)),
    ]
    options = {"Padding": VALID, "StrideW": 2, "StrideH": 2, "DepthMultiplier": 1}
    shape = (batch, height // 2, width // 2, channels)
    return graph.add_active("DEPTHWISE_CONV_2D", inputs, name, shape, "", **options)


register_form(Form("convolution", "litert", AvgPool, _group, _write, ("int8",)))
