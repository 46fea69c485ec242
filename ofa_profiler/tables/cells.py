"""The cells of a table: text to value. Parsers raise `ValueError` with the problem."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from ofa_profiler.networks.tensors import Shape

#: About 11 days. Sums of such times, and their ratios, are far from the limits of a float.
MAX_MS = 1e9
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[0-9]{1,18}")
_SHAPE = re.compile(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8})*")


def shown(text: str) -> str:
    """`text` in quotes, at most 120 characters, for a message."""
    return repr(text if len(text) <= 120 else f"{text[:117]}...")


def _number(text: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is not a number" + ("; write a decimal point" if "," in text else ""))
    return value


def parse_time_ms(text: str) -> float:
    """Parse a time above zero. Raises `ValueError`, also for a time that no op can take."""
    value = _number(text)
    if value <= 0:
        raise ValueError(f"{shown(text)} is not a time above zero")
    if not 1 / MAX_MS <= value <= MAX_MS:
        raise ValueError(f"{shown(text)} is not a time of an op: it must be from {1 / MAX_MS:g} to {MAX_MS:g} ms")
    return value


def parse_spread_ms(text: str) -> float:
    """Parse a standard deviation of times, at least zero. Raises `ValueError`."""
    value = _number(text)
    if value < 0:
        raise ValueError(f"{shown(text)} is below zero")
    if value > MAX_MS:
        raise ValueError(f"{shown(text)} is not a deviation of times: it must be at most {MAX_MS:g} ms")
    return value


def parse_count(text: str) -> int:
    """Parse a whole number, at least 1. Raises `ValueError`."""
    value = integer(text)
    if value < 1:
        raise ValueError(f"{shown(text)} is not at least 1")
    return value


def integer(text: str) -> int:
    """Parse a whole number. Raises `ValueError`."""
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a whole number")
    return int(text)


def flag(text: str) -> bool:
    """Parse 0 or 1. Raises `ValueError`."""
    return bool(one_of("0", "1")(text) == "1")


def shape(text: str) -> Shape:
    """Parse a shape: `112x112x24`. Raises `ValueError`."""
    if not _SHAPE.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a shape like 112x112x24")
    return tuple(map(int, text.split("x")))


def not_empty(text: str) -> str:
    """Return the text unless it is empty. Raises `ValueError`."""
    if not text:
        raise ValueError("is empty")
    return text


def one_of(*allowed: str) -> Callable[[str], str]:
    """A parser that accepts these texts only."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{shown(text)} is not one of {', '.join(a or 'nothing' for a in allowed)}")
        return text

    return parse


def optional(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A parser that returns None for an empty cell."""
    return lambda text: parse(text) if text else None
