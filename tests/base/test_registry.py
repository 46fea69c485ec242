"""Things that are known by name."""

from __future__ import annotations

import pytest

from ofa_profiler.base.registry import Registry
from ofa_profiler.errors import UsageError


def test_what_was_added_is_found_in_that_order() -> None:
    registry: Registry[int] = Registry("number")
    registry.add("two", 2)
    registry.add("one", 1)
    assert registry.names() == ("two", "one")
    assert registry.get("one") == 1


def test_a_name_is_taken_once() -> None:
    registry: Registry[int] = Registry("number")
    registry.add("one", 1)
    with pytest.raises(UsageError, match="number 'one' is already registered; choose another name"):
        registry.add("one", 2)
    assert registry.get("one") == 1


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    registry: Registry[int] = Registry("number")
    registry.add("one", 1)
    registry.add("two", 2)
    with pytest.raises(UsageError, match="unknown number 'three'; choose from one, two"):
        registry.get("three")
