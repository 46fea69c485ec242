"""From numbers to 8-bit integers: scales, zero points, weights and biases. Both file formats use these functions.

real = scale * (integer - zero_point), as in TFLite's specification of 8-bit quantization and in ONNX's QuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ofa_profiler.networks.parameters import Array
from ofa_profiler.networks.tensors import Span

#: The largest weight. -128 is not used, so that the range is symmetric.
MAX_WEIGHT = 127
#: The largest bias, half of what int32 holds: the sum of the products comes on top.
_MAX_BIAS = 2**30


@dataclass(frozen=True)
class Quantization:
    """One scale, or with an `axis` one per slice along it; the zero point of all; numpy's name of the integers."""

    scales: Array
    zero_point: int
    dtype: str
    axis: int | None = None

    @property
    def scale(self) -> float:
        """The scale of a tensor that has one."""
        (scale,) = self.scales
        return float(scale)

    def quantized(self, values: Array) -> Array:
        """The nearest integers. Values out of range become the limits."""
        limits = np.iinfo(self.dtype)
        scales = self.scales.astype(np.float64)
        if self.axis is not None:
            scales = scales.reshape([-1 if axis == self.axis else 1 for axis in range(values.ndim)])
        rounded = np.rint(values / scales) + self.zero_point
        integers: Array = np.clip(rounded, limits.min, limits.max).astype(self.dtype)
        return integers


def for_activations(span: Span, dtype: str = "int8") -> Quantization:
    """All 256 integers for the values of a tensor. Zero, the value of padding, is always exact."""
    limits = np.iinfo(dtype)
    low, high = span.with_zero()
    scale = np.float32((high - low) / (limits.max - limits.min))
    if not scale >= np.finfo(np.float32).tiny:  # all values are zero, or nearly
        scale = np.float32(1.0)
    zero_point = round(limits.min - low / float(scale))
    return Quantization(np.array([scale]), int(np.clip(zero_point, limits.min, limits.max)), dtype)


def for_weights(
    weight: Array, axis: int | None, input_scale: float, bias: Array | None = None, limit: int = MAX_WEIGHT
) -> Quantization:
    """int8 in [-limit, limit] for weights, with a scale per slice along `axis` (None: one scale).

    The scale of a channel with small weights and a large bias is larger than its weights need, so that the bias, in
    units of input scale times weight scale, fits 32 bits.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).astype(np.float64).max(axis=others if axis is not None else None).reshape(-1)
    scales = largest / limit
    if bias is not None:
        needed = np.abs(bias).astype(np.float64) / (_MAX_BIAS * input_scale)
        scales = np.maximum(scales, needed if axis is not None else needed.max())
    scales = np.where(scales < np.finfo(np.float32).tiny, 1.0, scales)
    return Quantization(scales.astype(np.float32), 0, "int8", axis)


def for_bias(input_scale: float, weights: Quantization) -> Quantization:
    """int32 in units of the products: input scale times the scale of the weights of the channel."""
    scales = np.float32(input_scale) * weights.scales
    return Quantization(scales.astype(np.float32), 0, "int32", None if weights.axis is None else 0)


def bounds_of_products(weight: Array, axis: int, bias: Array, span: Span) -> Span:
    """The span of a convolution's output that no input within `span` can leave. `axis` is that of output channels."""
    low, high = span
    flat = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    positive, negative = np.maximum(flat, 0).sum(1), np.minimum(flat, 0).sum(1)
    smallest, largest = positive * low + negative * high + bias, positive * high + negative * low + bias
    return Span(float(smallest.min()), float(largest.max()))


def product(first: Span, second: Span) -> Span:
    """The span of the product of two tensors."""
    corners: Sequence[float] = [a * b for a in first for b in second]
    return Span(min(corners), max(corners))
