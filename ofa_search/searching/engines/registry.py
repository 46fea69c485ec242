"""The engines by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ofa_profiler.base.registry import Registry
from ofa_search.searching.engines.base import Engine

#: What makes an engine with its default settings.
_ENGINES: Registry[Callable[[], Engine]] = Registry("engine")


def register_engine(engine: type[Engine]) -> None:
    """Make an engine known by its name to `search` and `ofa-search`. Raises `UsageError` if the name is taken."""
    _ENGINES.add(engine.name, engine)


def add_engine(name: str, class_name: str) -> None:
    """Make an engine of this package known, in the file of its name. It is imported when it is asked for."""

    def create() -> Engine:
        engine: type[Engine] = getattr(import_module(f"{__package__}.{name}"), class_name)
        return engine()

    _ENGINES.add(name, create)


def get_engine(name: str) -> Engine:
    """The engine of that name, with its default settings. Raises `UsageError` with the known names."""
    return _ENGINES.get(name)()


def engine_names() -> tuple[str, ...]:
    """The names that `get_engine` knows, the default first."""
    return _ENGINES.names()
