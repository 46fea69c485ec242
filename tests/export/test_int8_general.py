"""int8 versions of layers that only the spaces of users have: about the numbers of float32, in both runtimes."""

from __future__ import annotations

import numpy as np
import pytest
from support.both_formats import RUNTIMES, run_file
from support.int8 import calibrated, images, snr_db

from ofa_profiler.export import get_exporter
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces.language import (
    activation,
    average_pool,
    block,
    concat,
    conv,
    depthwise,
    linear,
    max_pool,
    residual,
    space,
    squeeze_excite,
)

PARTS = {
    "concat": block(conv(8, 3), concat(conv(4, activation="relu"), conv(8, 3), max_pool(3, 1)), conv(8)),
    "concat of one tensor": block(conv(4, 3), concat(conv(4), activation("relu6")), conv(8)),
    "silu": block(conv(8, 3, activation="silu"), conv(8)),
    "sigmoid": block(conv(8, 3, activation="sigmoid"), conv(8)),
    "gates": residual(conv(8, 3, activation="h_sigmoid"), squeeze_excite(), conv(3)),
    "maximum over the edge": block(conv(8, 3), max_pool(3, 2), max_pool(2, 1), conv(8)),
    "mean over the edge": block(conv(8, 3), average_pool(3, 2), average_pool(2, 1), conv(8)),
    "vectors": block(conv(4, 3, 2, "relu6"), linear(32, "relu"), linear(16, "h_swish"), linear(8)),
    "projection": block(residual(conv(8, 3, 2), project=True, activation="relu"), depthwise(5), conv(4)),
    "several clips": block(conv(8, 3, activation="relu6"), activation("relu"), activation("relu6"), conv(4)),
    "a clip of a gate": block(conv(8, 3, activation="h_sigmoid"), activation("relu"), conv(4)),
    "a gate of a gate": block(conv(8, 3, activation="h_sigmoid"), activation("h_sigmoid"), conv(4)),
    "activation": block(conv(8, 3), activation("relu"), conv(4)),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", PARTS)
def test_int8_is_about_float32(name, runtime):
    (op,) = space(PARTS[name], resolutions=[8], classes=4).unique_ops()
    weights = random_weights(op, np.random.default_rng(0))
    ranges, given = calibrated(op.graph, weights), images(op.graph, 1, seed=5)
    found = []
    for precision in ("fp32", "int8"):
        target = Target(runtime, precision)
        exact = {} if precision == "fp32" else {"ranges": ranges}
        data = get_exporter(target).build(op.graph, weights, target, outputs=["output"], metadata={}, **exact)
        found.append(run_file(runtime, data, {"input": given}))
    assert snr_db(*found) > 18
