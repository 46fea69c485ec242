"""Multiply-accumulates of TFLite operators, counted by hand."""

from __future__ import annotations

import pytest

from ofa_profiler.models.tflite_costs import operator_macs


@pytest.mark.parametrize(
    ("kind", "inputs", "output", "macs"),
    [
        ("CONV_2D", [(1, 8, 8, 3), (5, 3, 3, 3), (5,)], (1, 4, 4, 5), 4 * 4 * 5 * 27),
        # Two groups: the weights have half of the channels.
        ("CONV_2D", [(1, 8, 8, 4), (6, 1, 1, 2), (6,)], (1, 8, 8, 6), 64 * 6 * 2),
        ("DEPTHWISE_CONV_2D", [(2, 8, 8, 3), (1, 5, 5, 3), (3,)], (2, 8, 8, 3), 2 * 64 * 3 * 25),
        ("TRANSPOSE_CONV", [(4,), (5, 2, 2, 3), (1, 4, 4, 3)], (1, 8, 8, 5), 16 * 3 * 5 * 4),
        ("CONV_3D", [(1, 4, 4, 4, 2), (3, 3, 3, 2, 7), None], (1, 4, 4, 4, 7), 64 * 7 * 27 * 2),
        ("FULLY_CONNECTED", [(3, 10), (4, 10), None], (3, 4), 120),
        ("BATCH_MATMUL", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), 2 * 3 * 4 * 5),
        # The first one is stored transposed.
        ("BATCH_MATMUL", [(2, 4, 3), (2, 4, 5)], (2, 3, 5), 2 * 3 * 4 * 5),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", [(1, 6, 3), *[(5, 3)] * 4, *[(5, 5)] * 4], (1, 6, 5), 6 * 4 * (15 + 25)),
        ("UNIDIRECTIONAL_SEQUENCE_RNN", [(1, 6, 3), (5, 3), (5, 5), (5,)], (1, 6, 5), 6 * (15 + 25)),
        ("ADD", [(4, 4), (4, 4)], (4, 4), 0),
        ("MyOwnOp", [None], (), 0),
        ("CONV_2D", [(1, 8, 8, 3)], (1, 8, 8, 3), 0),
    ],
)
def test_macs(kind, inputs, output, macs):
    assert operator_macs(kind, inputs, output) == macs
