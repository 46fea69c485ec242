"""docs/own-space.md: its file, and all of its commands, in their order."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT

from ofa_profiler.spaces import language

TEXT = (ROOT / "docs" / "own-space.md").read_text(encoding="utf-8")
(FILE,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS, OF_A_SUPERNET = re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
MODULES = {
    "ofa-profile": "ofa_profiler.cli.profile",
    "ofa-verify": "ofa_profiler.cli.verify",
    "ofa-search": "ofa_search.cli.search",
    "ofa-train": "ofa_search.cli.train",
}
#: What makes a command quicker here.
QUICK = {
    "ofa-profile": "--resolution 24 --no-calibration --time-limit 2s",
    "ofa-verify": "--subnets 3 --time-limit 1s",
    "ofa-search": "",
    "ofa-train": "--epochs 0.2 --batch 16 --device cpu",
}


def run(line: str, folder: Path) -> str:
    program, *arguments = shlex.split(line)
    arguments = ["10ms" if word == "30us" else word for word in arguments]  # every machine can keep that
    more = "" if "--plan" in arguments else QUICK[program]
    if arguments[0] == "predictor":
        more = "--samples 24 --device cpu"
    if "--architecture" in arguments:
        more = more.replace("--subnets 3", "")
    done = subprocess.run(
        [sys.executable, "-m", MODULES[program], *arguments, *more.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout + done.stderr


def save_images(folder: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for number in range(3):
            images = folder / part / f"class{number}"
            images.mkdir(parents=True)
            for i in range(20):
                Image.fromarray(rng.integers(0, 250, (32, 32, 3)).astype(np.uint8)).save(images / f"{i}.png")


def test_it_is_about_twenty_lines() -> None:
    lines = [line for line in FILE.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 20


def test_the_page_names_every_word_of_the_language() -> None:
    assert [word for word in language.__all__ if word != "Preprocessing" and f"`{word}" not in TEXT] == []


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "my_space.py").write_text(FILE)
    save_images(tmp_path / "cifar10")
    commands = COMMANDS.splitlines()
    said = [run(line, tmp_path) for line in commands]
    assert "nothing was measured" in said[0]
    found = json.loads((tmp_path / "found" / "search.json").read_text())
    (result,) = found["results"]
    assert result["architecture"]["space"] == found["space"] == "my_space:SPACE"
    assert result["architecture"]["choices"].keys() >= {"narrow", "early.depth", "early.block0.kernel"}
    assert result["weights"] == "untrained"
    assert result["predicted_accuracy"] is None
    for kind in ("onnx", "tflite"):
        assert (tmp_path / "found" / Path(result["files"][kind]).name).exists()
    assert (tmp_path / "trained" / "subnet.onnx").exists()
    for line in OF_A_SUPERNET.splitlines():
        run(line, tmp_path)
    (result,) = json.loads((tmp_path / "out" / "search" / "search.json").read_text())["results"]
    assert result["weights"] == "trained"
    assert 0 <= result["predicted_accuracy"] <= 1


def test_a_plan_of_the_page(tmp_path: Path) -> None:
    """Also in another process, the ops have the same names."""
    (tmp_path / "my_space.py").write_text(FILE)
    listed = run("ofa-profile --space my_space:SPACE --plan --json --resolution 24", tmp_path)
    code = "from ofa_profiler import get_space; [print(op.key) for op in get_space('my_space:SPACE').unique_ops([24])]"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    keys = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert all(f'"{key}"' in listed for key in keys.stdout.splitlines())
