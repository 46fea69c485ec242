"""Small trainings for tests: images that can be learned, and a program that trains on them."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from ofa_search.data.images import Images

CLASSES = ("dark", "middling", "bright")


def made_images(count: int = 64, size: int = 32, seed: int = 0) -> Images:
    """Noise of three brightnesses: the classes are its order."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), count)
    pixels = rng.integers(0, 120, (count, 3, size, size)) + 60 * labels[:, None, None, None]
    return Images("made", torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels), CLASSES)


#: Trains in folder argv[1] with the schedule argv[2], epochs argv[3], batch argv[4]; saves at every row of the log.
PROGRAM = """
import sys
from pathlib import Path
import torch
from support.training import made_images
from ofa_profiler.spaces import get_space
from ofa_search.data.images import DataSplit
from ofa_search.training import loop as run
from ofa_search.evaluation.world import join_world
from ofa_search.training.schedule import load_schedule
from ofa_search.training.trainer import TrainingOptions

torch.set_num_threads(1)
run.SAVE_EVERY_S, run.LOG_STEPS, run.WATCHED = 0.0, 2, 4
images = made_images(72)
training, held_out = images.split(8)
space = get_space("cifar-mbv3").with_classes(3)
options = TrainingOptions(epochs=float(sys.argv[3]), batch=int(sys.argv[4]), learning_rate=2e-3)
with join_world("cpu") as world:
    data = DataSplit(training, held_out)
    print("ready", flush=True)
    run.train_supernet(space, load_schedule(sys.argv[2]), options, data, Path(sys.argv[1]), world)
"""


def start(out: Path, schedule: str, epochs: float, batch: int, **environment: str) -> subprocess.Popen[str]:
    """The program in a process of its own."""
    arguments = [sys.executable, "-c", PROGRAM, str(out), schedule, str(epochs), str(batch)]
    paths = {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments, env=os.environ | paths | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for it, and show what it said if it failed."""
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors


def rows(out: Path) -> list[dict[str, str]]:
    """The log without what depends on the time of day."""
    with (out / "training.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    return [{name: cell for name, cell in row.items() if name not in ("seconds", "images_per_s")} for row in read]
