"""The layers of ops, one file per type. Each file has everything that follows from the layer alone.

Those of the search spaces have fixed geometries. Networks that come from torch also use the general ones (`AnyConv`).
"""

from ofa_profiler.networks.layers.activate import Activate
from ofa_profiler.networks.layers.add import Add
from ofa_profiler.networks.layers.affine import Affine
from ofa_profiler.networks.layers.any_conv import AnyConv
from ofa_profiler.networks.layers.attention import SelfAttention
from ofa_profiler.networks.layers.base import Layer, LayerTable
from ofa_profiler.networks.layers.channels import ChannelShuffle, ChannelSlice
from ofa_profiler.networks.layers.concat import Concat
from ofa_profiler.networks.layers.conv import Conv
from ofa_profiler.networks.layers.flatten import AsMap, Flatten
from ofa_profiler.networks.layers.gelu import Gelu
from ofa_profiler.networks.layers.linear import Linear
from ofa_profiler.networks.layers.multiply import Multiply
from ofa_profiler.networks.layers.norm import LayerNorm
from ofa_profiler.networks.layers.padding import Pad
from ofa_profiler.networks.layers.pool import AvgPool, GlobalPool, MaxPool
from ofa_profiler.networks.layers.softmax import Softmax
from ofa_profiler.networks.layers.squeeze_excite import SqueezeExcite
from ofa_profiler.networks.layers.window import WindowMax, WindowMean

__all__ = [
    "Activate",
    "Add",
    "Affine",
    "AnyConv",
    "AsMap",
    "AvgPool",
    "ChannelShuffle",
    "ChannelSlice",
    "Concat",
    "Conv",
    "Flatten",
    "Gelu",
    "GlobalPool",
    "Layer",
    "LayerNorm",
    "LayerTable",
    "Linear",
    "MaxPool",
    "Multiply",
    "Pad",
    "SelfAttention",
    "Softmax",
    "SqueezeExcite",
    "WindowMax",
    "WindowMean",
]
