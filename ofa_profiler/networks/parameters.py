"""The parameters of a network: names, shapes, checks, and folding of BatchNorm into convolutions. All in numpy.

Names are those of a torch state_dict: `{slot}.{layer}.conv.weight`, `{slot}.se.reduce.bias`, `{slot}.linear.weight`.
Those of a single op have no `{slot}.`. The docstring of each layer lists its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.blocks import Layout, as_graph
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.layers import Conv
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.tensors import Shape

Array = NDArray[Any]
Weights = Mapping[str, Array]

#: Suffix of the counters of torch's BatchNorm, which inference does not need.
COUNTER_SUFFIX = "num_batches_tracked"


def parameter_shapes(network: Op | Layout | Graph) -> dict[str, Shape]:
    """Name -> shape, for all parameters and BatchNorm statistics of an op or a network."""
    return dict(as_graph(network).parameter_shapes)


def check_weights(shapes: Mapping[str, Shape], weights: Weights) -> None:
    """Raise `UsageError` unless `weights` has exactly these arrays, all finite. Counters of torch are ignored."""
    for name, shape in shapes.items():
        if name not in weights:
            raise UsageError(f"weights: {name} is missing; the weights belong to another network")
        if weights[name].shape != shape:
            raise UsageError(f"weights: {name} has the shape {weights[name].shape}, but this network needs {shape}")
        if not np.isfinite(weights[name]).all():
            raise UsageError(f"weights: {name} holds values that are not finite")
        if name.endswith("running_var") and (weights[name] < 0).any():
            raise UsageError(f"weights: {name} holds a negative variance")
    for name in weights:
        if name not in shapes and not name.endswith(COUNTER_SUFFIX):
            raise UsageError(f"weights: {name} is not a parameter of this network")


def folded_conv(layer: Conv, name: str, weights: Weights) -> tuple[Array, Array | None]:
    """Weight (out, in / groups, k, k) and bias (out) of the node `name` with its BatchNorm folded in, float32.

    They are computed in float64 and rounded once. The bias is None if the layer has neither bias nor BatchNorm.
    """

    def parameter(part: str) -> Array:
        return np.asarray(weights[f"{name}.{part}"], dtype=np.float64)

    weight = parameter("conv.weight")
    bias = parameter("conv.bias") if layer.bias else None
    if layer.batch_norm:
        scale = parameter("bn.weight") / np.sqrt(parameter("bn.running_var") + layer.epsilon)
        weight = weight * scale[:, None, None, None]
        shifted = -parameter("bn.running_mean") if bias is None else bias - parameter("bn.running_mean")
        bias = shifted * scale + parameter("bn.bias")
    return weight.astype(np.float32), None if bias is None else bias.astype(np.float32)
