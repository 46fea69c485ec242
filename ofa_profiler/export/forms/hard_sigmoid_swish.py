"""onnxruntime, int8: hard-swish as HardSigmoid and Mul.

onnxruntime has no integer kernel for HardSwish: integers become float32, and integers again. The integers of x saturate
like a hard sigmoid (`onnx_int8.py`), so this form runs in integers, except that x is quantized twice.
"""

from __future__ import annotations

from ofa_profiler.export.forms.base import ActivationForm, register_form
from ofa_profiler.export.onnx_graph import OnnxGraph

register_form(ActivationForm("hard_sigmoid", "onnxruntime", "h_swish", OnnxGraph.add_gated, ("int8",)))
