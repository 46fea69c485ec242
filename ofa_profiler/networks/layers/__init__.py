"""The layers of ops, one file per type. Each file has everything that follows from the layer alone."""

from ofa_profiler.networks.layers.add import Add
from ofa_profiler.networks.layers.attention import SelfAttention
from ofa_profiler.networks.layers.base import Layer, LayerTable
from ofa_profiler.networks.layers.conv import Conv
from ofa_profiler.networks.layers.gelu import Gelu
from ofa_profiler.networks.layers.linear import Linear
from ofa_profiler.networks.layers.norm import LayerNorm
from ofa_profiler.networks.layers.pool import AvgPool, GlobalPool, MaxPool
from ofa_profiler.networks.layers.squeeze_excite import SqueezeExcite

__all__ = [
    "Add",
    "AvgPool",
    "Conv",
    "Gelu",
    "GlobalPool",
    "Layer",
    "LayerNorm",
    "LayerTable",
    "Linear",
    "MaxPool",
    "SelfAttention",
    "SqueezeExcite",
]
