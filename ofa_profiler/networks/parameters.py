"""The numbers in a network: their names and shapes, checked, folded, and made up where none are trained.

Names are those of a torch state_dict: `{slot}.{layer}.conv.weight`, `{slot}.se.reduce.bias`,
`{slot}.linear.weight` (the docstrings of `ops.py` list them per layer); an op on its own has no
`{slot}.` in front. Everything here is numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.op import (
    AvgPool,
    Conv,
    GlobalPool,
    Layer,
    Linear,
    MaxPool,
    Op,
    Shape,
    SqueezeExcite,
    conv_weight_shape,
)

Array = NDArray[Any]
Weights = Mapping[str, Array]
#: The slots of a network as (slot name, op), in the order in which they run: `SearchSpace.layout`.
Layout = Sequence[tuple[str, Op]]

#: Parameters of torch's BatchNorm that no inference needs.
COUNTER_SUFFIX = "num_batches_tracked"

_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def layout_of(network: Op | Layout) -> Layout:
    """An op seen as a network of one slot without a name; a layout as it is."""
    return (("", network),) if isinstance(network, Op) else network


def parameter_name(slot: str, *parts: str) -> str:
    """The full name of a parameter; `slot` is empty for an op on its own."""
    return ".".join((slot, *parts) if slot else parts)


def layer_shapes(layer: Layer) -> dict[str, Shape]:
    """Names (without slot and layer) and shapes of a layer's parameters and BatchNorm statistics."""
    match layer:
        case Conv():
            shapes: dict[str, Shape] = {"conv.weight": conv_weight_shape(layer)}
            if layer.bias:
                shapes["conv.bias"] = (layer.out_channels,)
            if layer.batch_norm:
                shapes |= {f"bn.{field}": (layer.out_channels,) for field in _BATCH_NORM}
            return shapes
        case SqueezeExcite(_, channels, mid):
            return {
                "reduce.weight": (mid, channels, 1, 1),
                "reduce.bias": (mid,),
                "expand.weight": (channels, mid, 1, 1),
                "expand.bias": (channels,),
            }
        case MaxPool() | AvgPool() | GlobalPool():
            return {}
        case Linear():
            return {"weight": (layer.out_features, layer.in_features), "bias": (layer.out_features,)}
    raise TypeError(f"unknown layer {layer!r}")


def _layers(network: Op | Layout) -> Iterator[tuple[str, Op, Layer]]:
    for slot, op in layout_of(network):
        for layer in op.all_layers:
            yield slot, op, layer


def parameter_shapes(network: Op | Layout) -> dict[str, Shape]:
    """Every parameter of an op or a network, BatchNorm statistics included, and its shape."""
    return {
        parameter_name(slot, layer.name, name): shape
        for slot, _, layer in _layers(network)
        for name, shape in layer_shapes(layer).items()
    }


def check_weights(shapes: Mapping[str, Shape], weights: Weights) -> None:
    """Raise `UsageError` unless `weights` has exactly these finite arrays (torch's counters may be there too)."""
    for name, shape in shapes.items():
        if name not in weights:
            raise UsageError(f"weights: {name} is missing; they are of another network")
        if weights[name].shape != shape:
            raise UsageError(f"weights: {name} has shape {weights[name].shape}, this network needs {shape}")
        if not np.isfinite(weights[name]).all():
            raise UsageError(f"weights: {name} holds values that are not finite")
        if name.endswith("running_var") and (weights[name] < 0).any():
            raise UsageError(f"weights: {name} holds a negative variance")
    for name in weights:
        if name not in shapes and not name.endswith(COUNTER_SUFFIX):
            raise UsageError(f"weights: {name} is no parameter of this network")


def folded_conv(layer: Conv, slot: str, weights: Weights) -> tuple[Array, Array | None]:
    """The weight (out, in / groups, k, k) and bias (out), float32, of `layer` with its BatchNorm folded in.

    Computed in float64 and rounded once. The bias is None where the layer has neither bias nor BatchNorm.
    """

    def parameter(name: str) -> Array:
        return np.asarray(weights[parameter_name(slot, layer.name, name)], dtype=np.float64)

    weight = parameter("conv.weight")
    bias = parameter("conv.bias") if layer.bias else None
    if layer.batch_norm:
        scale = parameter("bn.weight") / np.sqrt(parameter("bn.running_var") + layer.epsilon)
        weight = weight * scale[:, None, None, None]
        shifted = -parameter("bn.running_mean") if bias is None else bias - parameter("bn.running_mean")
        bias = shifted * scale + parameter("bn.bias")
    return weight.astype(np.float32), None if bias is None else bias.astype(np.float32)


# --- made-up weights -------------------------------------------------------------------------------

#: Variance of the input of an activation for which its output has a mean square of about 1.
_GAIN = {"relu": 2.0, "relu6": 2.0, "h_swish": 2.4}
#: Share of the mean square that a block adds to its shortcut: deep networks neither fade nor explode.
_SHORTCUT_GAIN = 0.25

_Draw = Callable[[Shape], Array]


def _limit(layer: Layer, op: Op, shape: Shape) -> float:
    """Weights drawn evenly within +-limit keep the magnitude of the activations (He et al. 2015)."""
    gain = 1.0
    if isinstance(layer, Conv):
        gain = _GAIN.get(layer.activation or "", 1.0)
        if op.shortcut is not None and layer is op.layers[-1]:
            gain = _SHORTCUT_GAIN
    return sqrt(3 * gain / prod(shape[1:]))


def _made_up(network: Op | Layout, draw: _Draw, *, spread: float) -> dict[str, Array]:
    """Weights from `draw` (shape -> values within +-1); `spread` is how much BatchNorm's scales differ."""
    weights = {}
    for slot, op, layer in _layers(network):
        for name, shape in layer_shapes(layer).items():
            if name in ("bn.weight", "bn.running_var"):
                value = 1 + spread * draw(shape)
            elif name == "expand.bias":  # most of the squeeze-excite's gates stay well open
                value = 1.5 + draw(shape)
            elif len(shape) == 1:
                value = 0.2 * draw(shape)
            else:
                value = _limit(layer, op, shape) * draw(shape)
            weights[parameter_name(slot, layer.name, name)] = value.astype(np.float32)
    return weights


def random_weights(network: Op | Layout, rng: np.random.Generator) -> dict[str, Array]:
    """Untrained weights with BatchNorm statistics as different per channel as trained ones.

    They keep the magnitude of activations through a whole network: no overflow, no denormal numbers.
    """
    return _made_up(network, lambda shape: rng.uniform(-1, 1, shape), spread=0.25)


#: Floats in the block that `repeating_weights` repeats: 2 KB, well within the 32 KB that deflate looks
#: back. A prime, so that hundreds of rows of a weight matrix pass before one starts where another did.
_PERIOD = 509


def repeating_weights(network: Op | Layout) -> dict[str, Array]:
    """Untrained weights for timing: dense float32 values that compress more than fortyfold.

    Models for timing travel to boards over slow links, and how long an op takes does not depend on
    what its weights are, as long as none is zero or denormal. So every tensor repeats one block of
    random values, and all channels share the scale of their BatchNorm, which keeps the repetition
    when it is folded. Nothing is drawn anew: an op always gets the same bytes.
    """
    # numpy promises the same raw stream of a bit generator for ever, unlike that of its distributions.
    raw = np.random.PCG64(_PERIOD).random_raw(_PERIOD) >> np.uint64(40)
    centred = 2 * (raw.astype(np.int64) - int(raw.sum()) // _PERIOD) + 1  # a mean would add up over layers
    block = centred / 2**24
    return _made_up(network, lambda shape: np.resize(block, shape), spread=0.0)
