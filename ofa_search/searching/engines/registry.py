"""The engines by name."""

from __future__ import annotations

from ofa_profiler.base.registry import Registry
from ofa_search.searching.engines.base import Engine

_ENGINES: Registry[type[Engine]] = Registry("engine")


def register_engine(engine: type[Engine]) -> None:
    """Make an engine known by its name to `search` and `ofa-search`. Raises `UsageError` if the name is taken."""
    _ENGINES.add(engine.name, engine)


def get_engine(name: str) -> Engine:
    """The engine of that name, with its default settings. Raises `UsageError` with the known names."""
    return _ENGINES.get(name)()


def engine_names() -> tuple[str, ...]:
    """The names that `get_engine` knows, the default first."""
    return _ENGINES.names()
