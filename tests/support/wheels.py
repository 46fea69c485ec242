"""Wheels of made-up packages, and a folder of them that stands for the package index."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest


def make_wheel(
    folder: Path,
    tag: str,
    *,
    name: str = "onnxruntime",
    version: str = "1.19.0",
    files: Mapping[str, str] | None = None,
) -> Path:
    """A wheel with `files` by the place to which they belong; by default one file, and others in odd places."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-{tag}.whl"
    default = {
        f"{name}/__init__.py": f"version = '{version}'",
        f"{name}-{version}.data/purelib/{name}/tools.py": "",
        f"{name}-{version}.data/scripts/run": "#!python",
    }
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: sympy\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: {tag}\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in {**(default if files is None else files), **about}.items():
            archive.writestr(place, text)
    return path


def take_for_the_world(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip find the wheels in `folder` and no others."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
