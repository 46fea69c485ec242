"""The arithmetic of int8: the nearest integers, exact zeros, biases that fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ofa_profiler.errors import UsageError
from ofa_profiler.export import quantize
from ofa_profiler.networks.ranges import SOURCES, Ranges
from ofa_profiler.networks.tensors import Span

NUMBERS = st.floats(-1e6, 1e6, width=32)
SPANS = st.tuples(NUMBERS, NUMBERS).map(lambda ends: Span(min(ends), max(ends)))


def real(integers: np.ndarray, quantization: quantize.Quantization) -> np.ndarray:
    scales = quantization.scales.astype(np.float64)
    if quantization.axis is not None:
        scales = scales.reshape([-1 if i == quantization.axis else 1 for i in range(integers.ndim)])
    return scales * (integers.astype(np.float64) - quantization.zero_point)


@given(SPANS, st.sampled_from(["int8", "uint8"]), st.integers(0, 2**32 - 1))
def test_activations_are_the_nearest_of_256_levels(span, dtype, seed):
    quantization = quantize.for_activations(span, dtype)
    assert quantization.scale > 0
    values = np.random.default_rng(seed).uniform(*span, 50)
    rounded = real(quantization.quantized(values), quantization)
    # Moving the zero point to a whole number moves both ends by up to half a step.
    assert np.abs(rounded - values).max() <= quantization.scale * 1.001
    assert real(quantization.quantized(np.zeros(1)), quantization)[0] == 0


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.floats(-1e3, 1e3, width=32)),
    st.sampled_from([127, 64]),
    st.floats(1e-6, 1e3),
    st.floats(-1e4, 1e4),
)
def test_weights_are_symmetric_and_biases_fit(weight, limit, input_scale, value):
    bias = np.full(len(weight), value, np.float32)
    for axis in (0, None):
        scales = quantize.for_weights(weight, axis, input_scale, bias, limit)
        integers = scales.quantized(weight)
        assert np.abs(integers.astype(int)).max() <= limit
        rounding = np.abs(real(integers, scales) - weight)
        assert (rounding <= scales.scales.max() * 0.501 + 1e-30).all()
        sums = quantize.for_bias(input_scale, scales)
        assert (np.abs(sums.quantized(bias).astype(np.int64)) <= 2**30 + 2**8).all()


def test_ranges_that_no_float_can_hold_are_refused():
    data = Ranges({"a": Span(0, 1)}).to_json()
    data["spans"]["a"][1] = 10**400
    with pytest.raises(UsageError, match=r"ranges: a is \[0, 10+\], not two finite numbers in ascending order"):
        Ranges.from_json(data)


@given(st.integers(0, 2**32 - 1))
def test_no_input_leaves_the_bounds_of_products(seed):
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(3, 7)), rng.normal(size=3)
    span = Span(*np.sort(rng.normal(size=2)))
    bounds = quantize.bounds_of_products(weight, 0, bias, span)
    sums = weight @ rng.choice(span, (7, 200)) + bias[:, None]
    assert bounds.low - 1e-9 <= sums.min()
    assert sums.max() <= bounds.high + 1e-9


@given(st.dictionaries(st.text(max_size=9), SPANS, max_size=4), st.sampled_from(SOURCES))
def test_ranges_survive_json(spans, source):
    ranges = Ranges(spans, source)
    assert Ranges.from_json(ranges.to_json()) == ranges


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "ranges must be an object with 'source'"),
        ({"source": "else", "spans": {}}, "ranges must be an object with 'source'"),
        ({"source": "calibrated", "spans": {"a": [1]}}, r"ranges: 'a' must be \[low, high\], two numbers"),
        ({"source": "calibrated", "spans": {"a": [1, True]}}, r"ranges: 'a' must be \[low, high\], two numbers"),
        (
            {"source": "calibrated", "spans": {"a": [2, 1]}},
            r"ranges: a is \[2, 1\], not two finite numbers",
        ),
        (
            {"source": "calibrated", "spans": {"a": [0, float("nan")]}},
            r"ranges: a is \[0, nan\], not two finite",
        ),
    ],
)
def test_damaged_ranges_are_refused(data, words):
    with pytest.raises(UsageError, match=words):
        Ranges.from_json(data)
