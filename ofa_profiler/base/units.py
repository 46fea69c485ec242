"""Durations, counts and sizes with units: `20ms`, `1.5s`, `300M`, `5.3M`, `2MB`.

A number without a unit is refused, because `20` could mean milliseconds or seconds.
"""

from __future__ import annotations

import math
import re

from ofa_profiler.errors import UsageError

_DURATIONS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3, "h": 3600e3}
_COUNTS = {"K": 1e3, "M": 1e6, "G": 1e9}
_BYTES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9}
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([A-Za-z]*)", re.ASCII)


def _parse(text: str, units: dict[str, float], what: str, example: str) -> float:
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{what} {text!r} is not a positive number with a unit, like {example}")
    number, unit = match.groups()
    value = float(number) * units.get(unit, 1.0)
    if not 0 < value < math.inf:
        raise UsageError(f"{what} {text!r} must be above zero and finite, like {example}")
    if unit not in units:
        known = ", ".join(units)
        problem = f"has an unknown unit {unit!r}" if unit else "has no unit"
        raise UsageError(f"{what} {text!r} {problem}; use one of {known}, like {example}")
    return value


def parse_duration_ms(text: str, what: str = "duration") -> float:
    """`'1.5s'` -> `1500.0` milliseconds. Raises `UsageError`; `what` names the option in the message."""
    return _parse(text, _DURATIONS_MS, what, "20ms")


def parse_count(text: str, what: str = "count") -> float:
    """`'300M'` -> `3e8`. Raises `UsageError`; `what` names the option in the message."""
    return _parse(text, _COUNTS, what, "300M")


def parse_bytes(text: str, what: str = "size") -> float:
    """`'2MB'` -> `2e6` bytes. Raises `UsageError`; `what` names the option in the message."""
    return _parse(text, _BYTES, what, "2MB")


def format_duration_ms(value_ms: float) -> str:
    """Format milliseconds with three significant digits and a suitable unit: `0.8` -> `'800 us'`."""
    if value_ms >= 60e3:
        return f"{_three_digits(value_ms / 60e3)} min"
    if value_ms >= 1e3:
        return f"{_three_digits(value_ms / 1e3)} s"
    if value_ms >= 1:
        return f"{_three_digits(value_ms)} ms"
    return f"{_three_digits(value_ms * 1e3)} us"


def format_count(value: float) -> str:
    """Format a count with three significant digits and a suitable unit: `3e8` -> `'300M'`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= size:
            return f"{_three_digits(value / size)}{unit}"
    return _three_digits(value)


def format_bytes(value: float) -> str:
    """Format a size with three significant digits and a suitable unit: `2e6` -> `'2 MB'`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if value >= size:
            return f"{_three_digits(value / size)} {unit}"
    return f"{_three_digits(value)} B"


def _three_digits(value: float) -> str:
    # The format "g" alone gives 1e+03 for 999.9.
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"
