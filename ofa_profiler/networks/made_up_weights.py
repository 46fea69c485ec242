"""Weights for networks that nobody has trained: random ones, and repeating ones for timing."""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt

import numpy as np

from ofa_profiler.networks.blocks import Layout, as_graph
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.layers import Add, Conv
from ofa_profiler.networks.layers.activations import get_activation
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.parameters import Array
from ofa_profiler.networks.tensors import Shape

#: Share of the mean square that a block adds to its shortcut: deep networks neither fade nor explode.
_SHORTCUT_GAIN = 0.25

_Draw = Callable[[Shape], Array]


def random_weights(network: Op | Layout | Graph, rng: np.random.Generator) -> dict[str, Array]:
    """Untrained weights with BatchNorm statistics as different per channel as trained ones.

    They keep the magnitude of activations through a whole network: no overflow, no denormal numbers.
    """
    return _made_up(as_graph(network), lambda shape: rng.uniform(-1, 1, shape), spread=0.25)


#: Floats in the block that `repeating_weights` repeats: 2 KB, well within the 32 KB that deflate looks
#: back. A prime, so that hundreds of rows of a weight matrix pass before one starts where another did.
_PERIOD = 509


def repeating_weights(network: Op | Layout | Graph) -> dict[str, Array]:
    """Untrained weights for timing: dense float32 values that compress more than fortyfold.

    Models for timing travel to boards over slow links, and how long an op takes does not depend on what its weights
    are, as long as none is zero or denormal. So every tensor repeats one block of random values, and all channels
    share the scale of their BatchNorm, which keeps the repetition when it is folded. Nothing is drawn anew: an op
    always gets the same bytes.
    """
    # numpy promises the same raw stream of a bit generator for ever, unlike that of its distributions.
    raw = np.random.PCG64(_PERIOD).random_raw(_PERIOD) >> np.uint64(40)
    centred = 2 * (raw.astype(np.int64) - int(raw.sum()) // _PERIOD) + 1  # a mean would add up over layers
    block = centred / 2**24
    return _made_up(as_graph(network), lambda shape: np.resize(block, shape), spread=0.0)


def _made_up(graph: Graph, draw: _Draw, *, spread: float) -> dict[str, Array]:
    """Weights from `draw` (shape -> values within +-1); `spread` is how much the scales of norms differ."""
    added = {node.inputs[0] for node in graph.nodes if isinstance(node.layer, Add)}
    weights = {}
    for node in graph.nodes:
        for name, shape in node.layer.parameter_shapes().items():
            if len(shape) == 1 and name.endswith(("weight", "running_var")):
                value = 1 + spread * draw(shape)
            elif name == "expand.bias":  # most of the squeeze-excite's gates stay well open
                value = 1.5 + draw(shape)
            elif len(shape) == 1:
                value = 0.2 * draw(shape)
            else:
                gain = 1.0
                if isinstance(node.layer, Conv):
                    gain = _SHORTCUT_GAIN if node.name in added else get_activation(node.layer.activation).gain
                # Drawn evenly within this limit, weights keep the magnitude of the activations (He et al. 2015).
                value = sqrt(3 * gain / prod(shape[1:])) * draw(shape)
            weights[f"{node.name}.{name}"] = value.astype(np.float32)
    return weights
