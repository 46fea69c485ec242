"""LiteRT, int8: hard-swish as relu6(x + 3) / 6 * x, in three operators.

XNNPACK has no int8 HARD_SWISH. It runs in another kernel, and divides the network at each activation. In fp32 XNNPACK
has the operator, and this form loses.
"""

from __future__ import annotations

import numpy as np

from ofa_profiler.export.forms.base import ActivationForm, register_form
from ofa_profiler.export.tflite_graph import TfliteGraph


def _write(graph: TfliteGraph, name: str, tensor: str) -> str:
    shape = graph.shapes[tensor]
    three = graph.add_constant("three", np.array(3, np.float32))
    gate = graph.add_active("ADD", [tensor, three], f"{name}.shifted", shape, "relu6")
    sixth = graph.add_constant("one_sixth", np.array(1 / 6, np.float32))
    gate = graph.add_active("MUL", [gate, sixth], f"{name}.gate", shape)
    return graph.add_active("MUL", [tensor, gate], name, shape)


register_form(ActivationForm("arithmetic", "litert", "h_swish", _write, ("int8",)))
