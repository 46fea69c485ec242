"""Parameters of tests that run only with the slow or the long tests."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def marked(values: Iterable[str], mark: pytest.MarkDecorator, *, but: Collection[str]) -> list[Any]:
    """All values as parameters, with the mark except on some."""
    return [value if value in but else pytest.param(value, marks=mark) for value in values]
