"""Search spaces: families of networks with open choices."""

from ofa_profiler.spaces.base import Preprocessing, SearchSpace, Slot
from ofa_profiler.spaces.genes import Gene, Genomes
from ofa_profiler.spaces.ofa_notations import add_ofa_notations
from ofa_profiler.spaces.registry import as_space, get_space, known_space, register_space, space_names

__all__ = [
    "Gene",
    "Genomes",
    "Preprocessing",
    "SearchSpace",
    "Slot",
    "as_space",
    "get_space",
    "known_space",
    "register_space",
    "space_names",
]

add_ofa_notations()
