"""The runtimes for which networks are pruned, with what writes their files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ofa_search.pruning.latency.exporting import Exporter
from ofa_search.pruning.latency.onnx_files import OnnxFiles
from ofa_search.pruning.latency.tflite_files import TfliteFiles

EXPORTERS: Mapping[str, type[Exporter[Any]]] = {"onnxruntime": OnnxFiles, "litert": TfliteFiles}
