"""Fixtures of several commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network and its images."""
    from support.prunable import write_images, write_network

    folder = tmp_path_factory.mktemp("user")
    write_network(folder)
    write_images(folder / "photos")
    return folder


@pytest.fixture
def there(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(scratch)
    yield scratch
    sys.modules.pop("small_nets", None)
