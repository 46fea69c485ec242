"""Releases of a package: which one is asked for, and which is older. Only their numbers count."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from ofa_profiler.errors import UsageError

_RELEASE = re.compile(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", re.ASCII)
Numbers = tuple[int, ...]


def numbers_of(version: str | None) -> Numbers | None:
    """The numbers at the beginning of a version; None without any. `tflite_runtime 2.14.0` is that of its last word."""
    found = re.match(r"\d+(\.\d+)*", (version or "").rpartition(" ")[2], re.ASCII)
    return tuple(map(int, found[0].split("."))) if found else None


def release_of(version: object) -> str | None:
    """The release that an index may have: `1.31.1`, of `tflite_runtime 2.14.0` its last word; None for `1.2.dev3`."""
    found = re.fullmatch(r"(?:\w+ )?(\d+(?:\.\d+)+)", version, re.ASCII) if isinstance(version, str) else None
    return found[1] if found else None


def check_release(text: str) -> str:
    """`text`, if it is a release like 1.20 or 1.20.1. Raises `UsageError`."""
    if not _RELEASE.fullmatch(text):
        raise UsageError(f"--runtime-version {text!r:.60}: expected X.Y (its newest X.Y.Z) or X.Y.Z, like 1.20.1")
    return text


def is_of(version: str | None, release: str) -> bool:
    """Whether a version is the release X.Y.Z, or one of X.Y."""
    wanted = numbers_of(release)
    assert wanted is not None
    return (numbers_of(version) or ())[: len(wanted)] == wanted


class Range(NamedTuple):
    """The releases that pip may choose from, as pip's specifier; its newest is taken."""

    specifier: str

    @staticmethod
    def of(release: str) -> Range:
        """X.Y stands for all its X.Y.Z."""
        return Range(f"=={release}.*" if release.count(".") == 1 else f"=={release}")


@dataclass(frozen=True)
class Wanted:
    """The wish for a release.

    `asked`: this one and no other. `preferred`: this one, if it is there and not excluded, else the newest. `below`,
    `at_most`: no release from there on, no release after it.
    """

    asked: str | None = None
    preferred: str | None = None
    below: str | None = None
    at_most: str | None = None

    @property
    def ranges(self) -> list[Range]:
        """What to try, in this order."""
        if self.asked is not None:
            return [Range.of(self.asked)]
        limits = {"<": self.below, "<=": self.at_most}
        newest = Range(",".join(f"{sign}{limit}" for sign, limit in limits.items() if limit is not None))
        preferred = [] if self.preferred is None or self._excludes(self.preferred) else [Range.of(self.preferred)]
        return [*preferred, newest]

    def _excludes(self, release: str) -> bool:
        numbers, below, at_most = map(numbers_of, (release, self.below, self.at_most))
        assert numbers is not None
        return (below is not None and numbers >= below) or (at_most is not None and numbers > at_most)

    @property
    def key(self) -> str:
        """The wish as a part of a file name."""
        words = [("only", self.asked), ("like", self.preferred), ("below", self.below), ("upto", self.at_most)]
        return "-".join(f"{word}-{release}" for word, release in words if release is not None) or "newest"


def before(version: str) -> str:
    """The limit `below` which the minor releases before `version` lie: 1.21 for 1.21.3."""
    numbers = numbers_of(version)
    assert numbers is not None, "pip has chosen it"
    return ".".join(map(str, (*numbers, 0)[:2]))
