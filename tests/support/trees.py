"""Folders of images as names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ofa_search.data.tree import Folder, inside

SUFFIXES = frozenset((".jpg", ".png"))


def expanded(text: str) -> list[str]:
    """`{a,b}/x` -> `a/x`, `b/x`; words are separated by spaces."""
    if (match := re.search(r"\{([^{}]*)\}", text)) is None:
        return text.split()
    return [
        path
        for part in match[1].split(",")
        for word in [text[: match.start()].rpartition(" ")]
        for path in expanded(f"{word[2]}{part}{text[match.end() :]}")
    ]


def paths_of(text: str) -> list[str]:
    """All paths in a text with one pattern per word, like `train/{cat,dog}/{1,2}.jpg`."""
    return [path for word in text.split() for path in expanded(word)]


def tree_of(paths: Iterable[str], place: str = "") -> Folder:
    """The folder that holds these paths."""
    images, others, folders = [], [], {}
    for path in sorted(set(paths)):
        name, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(name, []).append(rest)
        elif any(name.lower().endswith(suffix) for suffix in SUFFIXES):
            images.append(name)
        else:
            others.append(name)
    counts = {f".{name.rpartition('.')[2]}": 0 for name in others}
    for name in others:
        counts[f".{name.rpartition('.')[2]}"] += 1
    below = tuple(tree_of(rest, inside(place, name)) for name, rest in sorted(folders.items()))
    return Folder(place, tuple(images), tuple(counts.items()), below)
