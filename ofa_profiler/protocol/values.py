"""The base class of records, which keeps the JSON object, and checks of single values."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JsonObject = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A record that a journal contains. Only `from_json` creates it, so `json` and the other fields agree."""

    json: JsonObject = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the object that it was read from: the same fields in the same order, including unknown ones."""
        return dict(self.json)


def is_whole(value: Any) -> bool:
    """Return whether the value is a whole number; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def number(value: Any) -> float | None:
    """Return the value as a number; None if it is not a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    with contextlib.suppress(OverflowError):
        found = float(value)
        return found if math.isfinite(found) else None
    return None


def is_nonnegative(value: Any) -> bool:
    """Return whether the value is a finite number, 0 or more."""
    found = number(value)
    return found is not None and found >= 0


def text_or_none(data: JsonObject, name: str) -> str | None:
    """Return the text in a field; None if it is null or missing. Raises `ValueError`."""
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name!r} must be text or null, not {value!r:.40}")
    return value
