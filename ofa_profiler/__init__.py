"""Turns a device into a latency table, and a table into milliseconds for any architecture."""

from ofa_profiler.architecture import Architecture, Stage
from ofa_profiler.spaces import get_space, space_names
from ofa_profiler.table import LatencyTable

__version__ = "0.1.0"

__all__ = ["Architecture", "LatencyTable", "Stage", "__version__", "get_space", "space_names"]
