"""Cutting units out of a module, what was cut as data, and pruned networks from their files."""

from ofa_search.pruning.cutting.load import load_pruned

__all__ = ["load_pruned"]
