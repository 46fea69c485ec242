"""Search spaces: families of networks and the choices that each leaves open."""

from ofa_profiler.spaces.base import Gene, Genomes, Preprocessing, SearchSpace, Slot
from ofa_profiler.spaces.registry import get_space, space_names

__all__ = ["Gene", "Genomes", "Preprocessing", "SearchSpace", "Slot", "get_space", "space_names"]
