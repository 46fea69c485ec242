"""Things that are known by name, and that other packages may add to."""

from __future__ import annotations

from typing import Generic, TypeVar

from ofa_profiler.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to things of one sort, in the order in which they were added. `what` names the sort in messages."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._entries: dict[str, T] = {}

    def add(self, name: str, thing: T) -> None:
        """Make `thing` known as `name`. Raises `UsageError` if that name is taken."""
        if name in self._entries:
            raise UsageError(f"{self._what} {name!r} is registered already; choose another name")
        self._entries[name] = thing

    def get(self, name: str) -> T:
        """What is known as `name`. Raises `UsageError` with the known names."""
        try:
            return self._entries[name]
        except KeyError:
            raise UsageError(f"unknown {self._what} {name!r}; known are {', '.join(self._entries)}") from None

    def names(self) -> tuple[str, ...]:
        """All known names, in the order in which they were added."""
        return tuple(self._entries)
