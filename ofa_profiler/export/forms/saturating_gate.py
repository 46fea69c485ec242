"""onnxruntime, int8: a hard sigmoid by the saturation of integers, in place of a float32 operator.

onnxruntime has no integer kernel for HardSigmoid and HardSwish: integers become float32, and integers again. But with a
scale of 6/254 and a zero point of 128, the integers of x saturate at 3 and a step below -3. So they are those of
hard_sigmoid(x) with a scale of 1/254 and a zero point of 1. In a squeeze-excite, the convolution before the gate gives
such integers at no cost. A hard-swish needs x with its own scale, too, so x is quantized twice.
"""

from __future__ import annotations

from ofa_profiler.export.forms.base import ActivationForm, Form, register_form
from ofa_profiler.export.onnx_graph import OnnxGraph
from ofa_profiler.export.onnx_layers import add_gate
from ofa_profiler.networks.layers import SqueezeExcite


def _group(_layer: SqueezeExcite) -> str | None:
    return "squeeze-excite"


def _write(graph: OnnxGraph, _layer: SqueezeExcite, name: str, tensor: str) -> str:
    gate = add_gate(graph, name, tensor)
    graph.saturating.add(gate)
    return graph.add_node("Mul", [tensor, gate], name)


def _write_hard_swish(graph: OnnxGraph, name: str, tensor: str) -> str:
    gate = graph.add_node("HardSigmoid", [tensor], name, alpha=1 / 6, beta=0.5)
    graph.saturating.add(gate)
    return graph.add_node("Mul", [tensor, gate], name)


register_form(Form("saturating_gate", "onnxruntime", SqueezeExcite, _group, _write, ("int8",)))
register_form(ActivationForm("saturating", "onnxruntime", "h_swish", _write_hard_swish, ("int8",)))
