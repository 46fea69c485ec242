"""Elastic networks: the supernet, its layers, its files and what is done to its weights."""

from ofa_search.supernet.checkpoint import save_supernet
from ofa_search.supernet.recalibration import recalibrate
from ofa_search.supernet.sorting import sort_channels
from ofa_search.supernet.supernet import Supernet
from ofa_search.training.memory import keep_freed_memory

__all__ = ["Supernet", "keep_freed_memory", "recalibrate", "save_supernet", "sort_channels"]
