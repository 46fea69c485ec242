"""An environment in which torch cannot be imported, in a process and in all that it starts."""

from __future__ import annotations

import os
from pathlib import Path

from support.paths import ROOT

#: Python imports `sitecustomize` when it starts.
_BLOCKER = """
import sys

class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, Blocker)
"""


def without_torch(folder: Path) -> dict[str, str]:
    """Environment variables; `folder` must be empty or missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_BLOCKER)
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
