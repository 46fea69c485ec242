"""`make` and the Python that it is given: one that does not run is not one that is too old."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.paths import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(tmp_path: Path, script: str) -> str:
    program = tmp_path / "python3.13"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    command = ["make", "-s", "environment", f"PYTHON={program}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert not (tmp_path / "venv").exists()
    return done.stderr


def test_a_python_that_does_not_run_says_why(tmp_path):
    said = make(tmp_path, "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    assert "pyenv: python3.13: command not found" in said
    assert "python3.13 does not run" in said
    assert "3.10" not in said


def test_a_python_that_is_too_old_is_named(tmp_path):
    said = make(tmp_path, 'case "$2" in *print*) echo 3.9.18;; *) exit 1;; esac')
    assert "python3.13 is Python 3.9.18, and 3.10 or newer is needed" in said
