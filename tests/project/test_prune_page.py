"""docs/prune.md as a reader runs it: all commands in their order, then its Python, with a small network."""

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

pytest.importorskip("PIL")
pytest.importorskip("torch")

PAGE = (ROOT / "docs" / "prune.md").read_text(encoding="utf-8")
NETWORK = """
import torch
from torch import nn


def resnet20():
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()]
    network = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()
    return network, {"mean": [0.491, 0.482, 0.447], "std": [0.247, 0.243, 0.262]}
"""
QUICK = ["--train-device", "cpu", "--epochs", "2", "--batch", "16", "--time-limit", "1s"]


def commands() -> list[list[str]]:
    """Those in blocks of sh."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line))]


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stderr}"
    return done.stdout


@pytest.mark.long
def test_the_page_about_pruning(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "my_nets.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    for split, label, number in np.ndindex(2, 10, 12):
        path = tmp_path / "cifar10" / ("train", "test")[split] / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    whole = ["--model", "my_nets:resnet20", "--input", "1x3x32x32", "--data", "cifar10", "--device", "local"]
    said = run(tmp_path, "-m", "ofa_search.prune_cli", *whole, "--budget", "1h", "--out", "out/whole", *QUICK, "--json")
    ms = 0.7 * json.loads(said)["before"]["measured_ms"]
    ran = 0
    for words in commands():
        line = [
            f"{1e3 * ms:.3f}us" if before == "--budget" else word
            for before, word in zip(["", *words], words, strict=False)
        ]
        if "torchrun" in line:  # in one process, and into a folder of its own
            line = ["ofa-prune", *line[line.index("ofa_search.prune_cli") + 1 : -1], "out/several"]
        assert line[0] == "ofa-prune"
        run(tmp_path, "-m", "ofa_search.prune_cli", *line[1:], *QUICK)
        ran += 1
    assert ran == 3
    python = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    code = [block for block in python if not block.startswith("# my_nets.py")]
    assert len(code) == 3
    run(tmp_path, "-c", "\n".join(code).replace("budget_ms=0.15", f"budget_ms={ms}"))
    assert (tmp_path / "out" / "python" / "pruned.safetensors").exists()
