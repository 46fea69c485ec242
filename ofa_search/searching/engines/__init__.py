"""The search algorithms, one per file."""

from ofa_search.searching.engines.base import Engine
from ofa_search.searching.engines.evolutionary import Evolutionary
from ofa_search.searching.engines.exact import Exact
from ofa_search.searching.engines.mcts import Mcts
from ofa_search.searching.engines.nsga2 import Nsga2
from ofa_search.searching.engines.random import Random
from ofa_search.searching.engines.registry import engine_names, get_engine, register_engine
from ofa_search.searching.engines.smbo import Smbo

__all__ = ["DEFAULT_ENGINE", "Engine", "engine_names", "get_engine", "register_engine"]

DEFAULT_ENGINE = Evolutionary.name

register_engine(Evolutionary)
register_engine(Exact)
register_engine(Mcts)
register_engine(Nsga2)
register_engine(Random)
register_engine(Smbo)
