"""Calibration: the ranges of the tensors of a network on real images.

The float32 network runs in onnxruntime, with all tensors that need a range as outputs; those that only a form has
(`Form.observe`) are among them. A range is one of

- `minmax`: the smallest and the largest value;
- `percentile`: values that 0.01% of the numbers are below, and above;
- `mse`: the range whose quantization has the smallest mean squared error, rounding and clipping together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module

import numpy as np
from onnx import TensorProto, helper

from ofa_profiler.errors import UsageError
from ofa_profiler.export.forms.base import Form, all_forms
from ofa_profiler.export.onnx import OnnxExporter
from ofa_profiler.export.onnx_graph import OnnxGraph
from ofa_profiler.networks.graph import Graph, Node
from ofa_profiler.networks.parameters import Array, Weights
from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.networks.tensors import Span
from ofa_profiler.protocol.target import Target
from ofa_profiler.runtimes import runtimes

METHODS = ("minmax", "percentile", "mse")
#: The percentage of the numbers outside a range by `percentile`, on each side.
_OUTSIDE = 0.01
_BINS = 2048
#: About the number of values of a tensor in a batch that `percentile` and `mse` look at, evenly spaced.
_SAMPLED = 1 << 16
#: Number of lower and of upper ends that `mse` tries.
_ENDS = 128

#: Gives the batches of images, float32 (N, C, H, W), as often as it is called.
Batches = Callable[[], Iterable[Array]]


def calibrate(graph: Graph, weights: Weights, batches: Batches, *, method: str = "minmax") -> Ranges:
    """The ranges of all tensors of `graph` over these images, which are preprocessed as for the network.

    Ranges by `percentile` and `mse` need two runs over the images. Raises `UsageError` for an unknown method, and if
    there are no images or a value is not finite.
    """
    if method not in METHODS:
        raise UsageError(f"unknown method of calibration {method!r}; choose from {', '.join(METHODS)}")
    network = _Network(graph, weights)
    limits: dict[str, Span] = {}
    for batch in batches():
        for name, values in network.run(batch):
            span = Span(float(values.min()), float(values.max()))
            known = limits.get(name, span)
            limits[name] = Span(min(known.low, span.low), max(known.high, span.high))
    if not limits:
        raise UsageError("calibration needs images, and there are none")
    wrong = [name for name, span in limits.items() if not np.isfinite(span).all()]
    if wrong:
        raise UsageError(f"calibration: {wrong[0]} has values that are not finite")
    if method == "minmax":
        return Ranges(limits)
    histograms = {name: np.zeros(_BINS) for name in limits}
    for batch in batches():
        for name, values in network.run(batch):
            histograms[name] += _histogram(values, limits[name])
    chosen = {"percentile": _percentiles, "mse": _least_error}[method]
    return Ranges(
        {name: chosen(histograms[name], span) if span.high > span.low else span for name, span in limits.items()}
    )


class _Network:
    """The float32 network, which returns all tensors that need a range."""

    def __init__(self, graph: Graph, weights: Weights) -> None:
        for runtime in runtimes().values():
            import_module(runtime.exporter.partition(":")[0])  # registers its forms
        self.graph, self.weights = graph, weights
        self.sessions: dict[int, tuple[object, list[str], list[str]]] = {}

    def run(self, batch: Array) -> Iterable[tuple[str, Array]]:
        """Yield the name of each tensor and its values."""
        import onnxruntime

        if len(batch) not in self.sessions:  # models have a fixed batch
            model, names, outputs = self._model(len(batch))
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            self.sessions[len(batch)] = session, names, outputs
        session, names, outputs = self.sessions[len(batch)]
        (source,) = self.graph.inputs
        yield source.name, batch
        yield from zip(names, session.run(outputs, {source.name: batch}), strict=True)  # type: ignore[attr-defined]

    def _model(self, batch: int) -> tuple[bytes, list[str], list[str]]:
        """The bytes of the model, the names of its outputs in `Ranges`, and those in the model."""
        target = Target(batch=batch)
        exporter = OnnxExporter()
        file = exporter.written(self.graph, self.weights, target, outputs=self.graph.outputs, observe=_observe)
        inputs = {tensor.name for tensor in self.graph.inputs}
        tensors = {name: tensor for name, tensor in file.marks.tensors().items() if name not in inputs}
        values = [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None) for tensor in tensors.values()]
        model = exporter.model(file, self.graph, target, values)
        return bytes(model.SerializeToString()), list(tensors), list(tensors.values())


def _observe(file: OnnxGraph, node: Node, *tensors: str) -> None:
    """Add the tensors that only the forms of a node have."""
    for form in all_forms():
        if isinstance(form, Form) and form.observe is not None and form.group_of(node.layer) is not None:
            form.observe(file, node.layer, node.name, *tensors)


def _histogram(values: Array, limits: Span) -> Array:
    flat = values.reshape(-1)
    flat = flat[:: flat.size // _SAMPLED | 1].astype(np.float64)  # an odd step visits all columns of a map
    with np.errstate(invalid="ignore"):  # 0 / 0: all values are the same
        places = np.nan_to_num((flat - limits.low) / (limits.high - limits.low))
    bins = np.minimum(places * _BINS, _BINS - 1).astype(np.intp)
    counts: Array = np.bincount(bins, minlength=_BINS)
    return counts


def _percentiles(histogram: Array, limits: Span) -> Span:
    share = np.concatenate([[0.0], np.cumsum(histogram)]) / histogram.sum()
    edges = np.linspace(*limits, _BINS + 1)
    low, high = np.interp([_OUTSIDE / 100, 1 - _OUTSIDE / 100], share, edges)
    return Span(float(low), float(high))


def _least_error(histogram: Array, limits: Span) -> Span:
    """The ends that minimise the squared error of 256 levels: clipped values, and scale^2 / 12 for all others."""
    centres = np.linspace(*limits, 2 * _BINS + 1)[1::2]
    lows = np.linspace(limits.low, min(limits.high, max(limits.low, 0.0)), _ENDS)
    highs = np.linspace(limits.high, max(limits.low, min(limits.high, 0.0)), _ENDS)
    below = np.array([(histogram * np.square(np.minimum(centres - low, 0))).sum() for low in lows])
    above = np.array([(histogram * np.square(np.maximum(centres - high, 0))).sum() for high in highs])
    widths = np.maximum(highs, 0)[None, :] - np.minimum(lows, 0)[:, None]
    errors = below[:, None] + above[None, :] + histogram.sum() * np.square(widths / 255) / 12
    low, high = np.unravel_index(np.argmin(errors), errors.shape)
    return Span(float(lows[low]), float(highs[high]))
