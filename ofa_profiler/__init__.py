"""Turns a device into a latency table, and a table into milliseconds for any architecture."""

from ofa_profiler.base.version import __version__
from ofa_profiler.networks.architecture import Architecture, Stage
from ofa_profiler.spaces import get_space, space_names
from ofa_profiler.tables.table import LatencyTable

__all__ = ["Architecture", "LatencyTable", "Stage", "__version__", "get_space", "space_names"]
