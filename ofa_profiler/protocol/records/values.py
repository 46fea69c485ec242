"""What the records have in common: the JSON object that they keep, and checks of single values in it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JsonObject = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A record that a journal keeps. It is made by `from_json` alone, so `json` and the other fields agree."""

    json: JsonObject = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The object that it was read from: the same fields in the same order, unknown ones included."""
        return dict(self.json)


def is_whole(value: Any) -> bool:
    """Whether it is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def number(value: Any) -> float | None:
    """The value as a number; None if it is no finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    with contextlib.suppress(OverflowError):
        found = float(value)
        return found if math.isfinite(found) else None
    return None


def is_nonnegative(value: Any) -> bool:
    """Whether it is a finite number, 0 or more."""
    found = number(value)
    return found is not None and found >= 0


def text_or_none(data: JsonObject, name: str) -> str | None:
    """The text in a field, None if it is null or missing. Raises `ValueError`."""
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name!r} must be text or null, not {value!r:.40}")
    return value
