"""For tests of the search itself."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def short_searches() -> None:
    """Here, searches are as long as a user's."""
