"""The optimizers that prune, by name."""

from __future__ import annotations

from ofa_profiler.base.registry import Registry
from ofa_search.pruning.optimizers.base import PruningOptimizer

_OPTIMIZERS: Registry[type[PruningOptimizer]] = Registry("pruning optimizer")


def register_pruning_optimizer(optimizer: type[PruningOptimizer]) -> None:
    """Make an optimizer known by its name. Raises `UsageError` if the name is taken."""
    _OPTIMIZERS.add(optimizer.name, optimizer)


def get_pruning_optimizer(name: str) -> type[PruningOptimizer]:
    """The optimizer of that name. Raises `UsageError` with the known names."""
    return _OPTIMIZERS.get(name)


def pruning_optimizer_names() -> tuple[str, ...]:
    """The names that `get_pruning_optimizer` knows, the default first."""
    return _OPTIMIZERS.names()
