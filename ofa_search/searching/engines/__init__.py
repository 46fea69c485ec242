"""The search algorithms, one per file."""

from ofa_search.searching.engines.base import Engine
from ofa_search.searching.engines.registry import add_engine, engine_names, get_engine, register_engine
from ofa_search.searching.objectives import Objective

__all__ = ["DEFAULT_ENGINE", "Engine", "engine_names", "get_engine", "register_engine"]

DEFAULT_ENGINE = Objective.default_engine

add_engine(DEFAULT_ENGINE, "Evolutionary")
add_engine("exact", "Exact")
add_engine("mcts", "Mcts")
add_engine("nsga2", "Nsga2")
add_engine("random", "Random")
add_engine("smbo", "Smbo")
