"""What each backend of the profiler makes of a layer. The backends fill these tables when they are imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ofa_profiler.networks.layers.base import LayerTable

#: Layer type -> `make(layer)`: the torch module. Maps are (N, C, H, W), sequences (N, length, C).
TORCH_LAYERS: LayerTable[Callable[[Any], Any]] = LayerTable("torch")
#: Layer type -> `write(graph, layer, name, *inputs)`: adds the ONNX nodes, returns the name of the output.
ONNX_LAYERS: LayerTable[Callable[..., str]] = LayerTable("the ONNX exporter")
#: Layer type -> `write(graph, layer, name, *inputs)`: adds the TFLite nodes, returns the name of the output.
TFLITE_LAYERS: LayerTable[Callable[..., str]] = LayerTable("the TFLite exporter")
