"""Named entries, to which other packages can add."""

from __future__ import annotations

from typing import Generic, TypeVar

from ofa_profiler.base.plugins import load_plugins
from ofa_profiler.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """Name -> entry, in the order of addition. `what` names the sort of entries in messages."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> None:
        """Register `entry` as `name`. Raises `UsageError` if the name is taken."""
        if name in self._entries:
            raise UsageError(f"{self._what} {name!r} is already registered; choose another name")
        self._entries[name] = entry

    def replace(self, name: str, entry: T) -> None:
        """Register `entry` as `name` in place of what was."""
        self._entries[name] = entry

    def get(self, name: str) -> T:
        """The entry registered as `name`; an unknown name may be that of a plugin. Raises `UsageError`."""
        if name not in self._entries:
            load_plugins()
        if name not in self._entries:
            raise UsageError(f"unknown {self._what} {name!r:.100}; choose from {', '.join(self._entries)}")
        return self._entries[name]

    def names(self) -> tuple[str, ...]:
        """All names, in the order of addition."""
        return tuple(self._entries)
