"""The search algorithms by name, one per file."""

from ofa_profiler.errors import UsageError
from ofa_search.searching.engines.base import Constraint, Engine, Problem, Result
from ofa_search.searching.engines.evolutionary import Evolutionary
from ofa_search.searching.engines.random import Random

__all__ = ["DEFAULT_ENGINE", "Constraint", "Engine", "Problem", "Result", "engine_names", "get_engine"]

_ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (Evolutionary, Random)}
DEFAULT_ENGINE = Evolutionary.name


def engine_names() -> tuple[str, ...]:
    """The names that `get_engine` knows, the default first."""
    return tuple(_ENGINES)


def get_engine(name: str) -> Engine:
    """The engine of that name, with its default settings. Raises `UsageError` with the known names."""
    try:
        return _ENGINES[name]()
    except KeyError:
        raise UsageError(f"unknown engine {name!r}; known are {', '.join(_ENGINES)}") from None
