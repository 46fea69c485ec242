"""Networks with random weights for tests of int8, and the quantizers of others."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import onnx
import pytest

from ofa_profiler import get_space
from ofa_profiler.export import get_exporter
from ofa_profiler.export.calibration import calibrate
from ofa_profiler.export.forms.base import candidates
from ofa_profiler.networks.blocks import as_graph
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.networks.parameters import Weights
from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.protocol.encodings import Encoding
from ofa_profiler.protocol.forms import Forms
from ofa_profiler.protocol.target import Target


@lru_cache(maxsize=8)
def network(space_name: str, seed: int) -> tuple[Graph, Weights]:
    """A random network of the space at its smallest resolution, with random weights."""
    space = get_space(space_name)
    graph = as_graph(space.layout(space.at(min(space.resolutions)).sample(np.random.default_rng(seed))))
    return graph, random_weights(graph, np.random.default_rng(seed))


def images(graph: Graph, count: int, seed: int) -> np.ndarray:
    """Normalised images for a graph: float32 (N, C, H, W)."""
    height, width, channels = graph.inputs[0].shape
    return np.random.default_rng(seed).standard_normal((count, channels, height, width)).astype(np.float32)


def calibrated(graph: Graph, weights: Weights) -> Ranges:
    """The ranges over eight images."""
    return calibrate(graph, weights, lambda: [images(graph, 8, seed=77)])


def fast_forms(target: Target, graph: Graph) -> Forms:
    """The first form of every group."""
    get_exporter(target)  # registers its forms
    return Forms({group: names[0] for group, names in candidates(target, graph).items()})


def snr_db(expected: np.ndarray, got: np.ndarray) -> float:
    """Signal-to-noise ratio in decibels."""
    noise = np.square(got.astype(np.float64) - expected).sum()
    return float(10 * np.log10(np.square(expected.astype(np.float64)).sum() / max(noise, 1e-30)))


def edge_quantized(model: bytes, spans: Mapping[str, tuple[float, float]]) -> bytes:
    """A float32 TFLite model in int8 by ai-edge-quantizer, with these ranges of all its tensors, by name.

    Skips the test if it is not installed.
    """
    quantizer = pytest.importorskip("ai_edge_quantizer.quantizer", reason="needs PyPI's ai-edge-quantizer")
    recipe = pytest.importorskip("ai_edge_quantizer.recipe")

    def array(value: float) -> np.ndarray:
        return np.array(value, np.float32).reshape(1, 1, 1, 1)

    ranges = {name: {"min": array(low), "max": array(high)} for name, (low, high) in spans.items()}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return bytes(quantizer.Quantizer(model, recipe.static_wi8_ai8()).quantize(ranges).quantized_model)


def onnx_quantized(model: bytes, spans: Mapping[str, tuple[float, float]], encoding: Encoding) -> bytes:
    """A float32 ONNX model in QDQ by onnxruntime's own quantizer, with these ranges of its tensors, by name."""
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    ranges = {name: (np.array(low, np.float32), np.array(high, np.float32)) for name, (low, high) in spans.items()}
    loaded = onnx.load_from_string(model)
    quantizer = QDQQuantizer(
        loaded,
        per_channel=True,
        reduce_range=encoding.max_weight < 127,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8 if encoding.activations == "uint8" else QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=[*QDQRegistry, *QLinearOpsRegistry],
        extra_options={},
    )
    quantizer.quantize_model()
    return bytes(quantizer.model.model.SerializeToString())
