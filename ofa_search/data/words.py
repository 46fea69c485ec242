"""The words by which file and folder names say which split of a data set they belong to.

The rules are those of Hugging Face's `datasets` (`data_files.py`), in any case: a keyword counts where `-`, `.`, `_`,
a space, a digit or the end of the name is on both sides of it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

TRAIN, VALIDATION, TEST = "train", "validation", "test"
#: A use of images that needs no labels, like calibration.
UNLABELLED = "unlabelled"
KEYWORDS = {
    TRAIN: ("training", "train"),
    VALIDATION: ("validation", "valid", "dev", "val"),
    TEST: ("testing", "test", "evaluation", "eval"),
}
_SPLITS = {word: split for split, words in KEYWORDS.items() for word in words}
_SEPARATORS = re.compile(r"[-._ 0-9]+")


def is_keyword(name: str) -> bool:
    """Whether the name is a keyword and nothing else."""
    return name.lower() in _SPLITS


def splits_in(name: str) -> frozenset[str]:
    """All splits that a name speaks of."""
    return frozenset(_SPLITS[word] for word in _keywords(name))


def splits_of(names: Iterable[str]) -> dict[str, str]:
    """Name -> its split, for the names that speak of exactly one.

    A keyword that all names share tells nothing: `eval-set-train` and `eval-set-test` are training and test.
    """
    found = {name: words for name in names if (words := _keywords(name))}
    shared = frozenset.intersection(*found.values()) if found else frozenset()
    if all(words - shared for words in found.values()):
        found = {name: words - shared for name, words in found.items()}
    splits = {name: {_SPLITS[word] for word in words} for name, words in found.items()}
    return {name: of.pop() for name, of in splits.items() if len(of) == 1}


def _keywords(name: str) -> frozenset[str]:
    return frozenset(word for word in _SEPARATORS.split(name.lower()) if word in _SPLITS)


def alike_but_for_a_keyword(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that differ only in a keyword of two splits, set apart or not, like `trainA` and `testA`."""
    seen: Mapping[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        lower = name.lower()
        for word, split in _SPLITS.items():
            if (start := lower.find(word)) >= 0:
                others = seen[f"{lower[:start]}\0{lower[start + len(word) :]}"]
                others.setdefault(split, name)
                if len(others) > 1:
                    first, second = list(others.values())[:2]
                    return first, second
    return None
