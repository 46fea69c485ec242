"""Untrained weights: random ones, and repeating ones for timing."""

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

#: Mean square of a block's output relative to its shortcut. Activations of deep networks keep their magnitude.
_SHORTCUT_GAIN = 0.25

_Draw = Callable[[Shape], Array]


def random_weights(network: Op | Layout | Graph, rng: np.random.Generator) -> dict[str, Array]:
    """Random weights, float32. BatchNorm statistics vary between channels as in a trained network.

    Activations keep their magnitude through the network, so there is no overflow and there are no denormal numbers.
    """
    return _made_up(as_graph(network), lambda shape: rng.uniform(-1, 1, shape), spread=0.25)


#: Number of floats that `repeating_weights` repeats: 2 KB, which is less than the 32 KB window of deflate. It is a
#: prime, so hundreds of consecutive rows of a weight matrix differ.
_PERIOD = 509


def repeating_weights(network: Op | Layout | Graph) -> dict[str, Array]:
    """Weights for timing: dense float32 values that compress by a factor of more than 40.

    Models for timing are sent to boards over slow links. The time of an op does not depend on the values of its
    weights if none is zero or denormal. So every tensor repeats one block of random values. All channels have the
    same BatchNorm scale, so the values still repeat after folding. An op always gets the same bytes.
    """
    # Across versions, numpy guarantees the raw stream of a bit generator, but not those of its distributions.
    raw = np.random.PCG64(_PERIOD).random_raw(_PERIOD) >> np.uint64(40)
    centred = 2 * (raw.astype(np.int64) - int(raw.sum()) // _PERIOD) + 1  # a nonzero mean would accumulate
    block = centred / 2**24
    return _made_up(as_graph(network), lambda shape: np.resize(block, shape), spread=0.0)


def _made_up(graph: Graph, draw: _Draw, *, spread: float) -> dict[str, Array]:
    """Weights from `draw` (shape -> values in [-1, 1]). The scales of norms are in 1 +- `spread`."""
    added = {node.inputs[0] for node in graph.nodes if isinstance(node.layer, Add)}
    weights = {}
    for node in graph.nodes:
        for name, shape in node.layer.parameter_shapes().items():
            if len(shape) == 1 and name.endswith(("weight", "running_var")):
                value = 1 + spread * draw(shape)
            elif name == "expand.bias":  # keeps most gates of the squeeze-excite open
                value = 1.5 + draw(shape)
            elif len(shape) == 1:
                value = 0.2 * draw(shape)
            else:
                gain = 1.0
                if isinstance(node.layer, Conv):
                    gain = _SHORTCUT_GAIN if node.name in added else get_activation(node.layer.activation).gain
                # Uniform weights within this limit preserve the magnitude of activations (He et al. 2015).
                value = sqrt(3 * gain / prod(shape[1:])) * draw(shape)
            weights[f"{node.name}.{name}"] = value.astype(np.float32)
    return weights
