"""Names of tensors and nodes: printable, and different from others."""

from __future__ import annotations

from collections.abc import Collection


def printable(name: str) -> str:
    """A name on one line."""
    return "".join(letter if letter.isprintable() else " " for letter in name).strip()


def unique(name: str, taken: Collection[str]) -> str:
    """The name of a block or output, with `#2` and so on if it is taken."""
    return _numbered(name, "#", 2, taken)


def fresh(name: str, taken: Collection[str]) -> str:
    """The name of a new tensor, with `_1` and so on if it is taken."""
    return _numbered(name, "_", 1, taken)


def _numbered(name: str, mark: str, first: int, taken: Collection[str]) -> str:
    tried, number = name, first
    while tried in taken:
        tried, number = f"{name}{mark}{number}", number + 1
    return tried
