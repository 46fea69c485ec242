"""The language in which users write search spaces of their own (docs/own-space.md).

Its words are those of DeepArchitect (arXiv 1909.13404), where a network is a tree of choices, too.
"""

from ofa_profiler.spaces.base import Preprocessing
from ofa_profiler.spaces.language.layers import (
    activation,
    average_pool,
    conv,
    depthwise,
    global_pool,
    linear,
    max_pool,
    squeeze_excite,
)
from ofa_profiler.spaces.language.parts import block, concat, optional, repeat, residual, sequence
from ofa_profiler.spaces.language.space import space
from ofa_profiler.spaces.language.values import choice, dependent, inputs, rounded

__all__ = [
    "Preprocessing",
    "activation",
    "average_pool",
    "block",
    "choice",
    "concat",
    "conv",
    "dependent",
    "depthwise",
    "global_pool",
    "inputs",
    "linear",
    "max_pool",
    "optional",
    "repeat",
    "residual",
    "rounded",
    "sequence",
    "space",
    "squeeze_excite",
]
