"""LiteRT: zero padding before max pooling whose input is never negative, in place of mirrored padding.

XNNPACK does not support MIRROR_PAD. It runs in a slow kernel, and divides the network into two delegated parts. Seen to
win: 6 times for the layer, 1.05 to 1.1 times for networks of `ofa-resnet50` (AMD EPYC, LiteRT 2.3).
"""

from __future__ import annotations

from ofa_profiler.export.forms.base import Form, register_form
from ofa_profiler.export.tflite_graph import VALID, TfliteGraph
from ofa_profiler.networks.layers import MaxPool


def _group(layer: MaxPool) -> str | None:
    return "max pooling after ReLU" if layer.nonnegative else None


def _write(graph: TfliteGraph, _layer: MaxPool, name: str, tensor: str) -> str:
    return graph.add_pool("MAX_POOL_2D", graph.add_pad("PAD", tensor, f"{name}.pads", 1, 1), name, 3, VALID)


register_form(Form("zero_padding", "litert", MaxPool, _group, _write, ("fp32", "int8")))
