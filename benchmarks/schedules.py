"""Compares the training schedules at equal cost.

    python benchmarks/schedules.py --data TRAIN.parquet --test-data TEST.parquet --out DIR

Trains cifar-mbv3 with every included schedule, and its smallest, middle and largest subnet from scratch. Each training
has the same cost: `--cost`, in 10^12 multiply-accumulates, where a step forward and backward counts three times a
forward pass. So the three networks together cost three times as much as one supernet. The optimizer is the same for
all (SGD), and no option is tuned for a row.

`--only NAME...` selects trainings: at a third of the cost, the three networks together cost as much as one supernet.

`--jobs` trainings run at the same time, each in a process with one thread. The table is in GitHub's Markdown: top-1 on
the test images, epochs, and minutes of wall time. After an interruption, run the same command again: it resumes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ofa_profiler import get_space
from ofa_profiler.base.files import write_text
from ofa_search.evaluation.subnets import REPRESENTATIVES, representatives
from ofa_search.training.cost import TRAINED, macs_per_image
from ofa_search.training.schedule import load_schedule, schedule_names

SPACE = "cifar-mbv3"
OPTIMIZER = ("--optimizer", "sgd", "--learning-rate", "0.08", "--weight-decay", "5e-4")


@dataclass(frozen=True)
class Training:
    """A run of `ofa-train` with its own folder."""

    name: str
    kind: str
    epochs: float
    options: tuple[str, ...]


def trainings(arguments: argparse.Namespace) -> list[Training]:
    """Return the selected trainings, all with the same cost."""
    space, cost = get_space(SPACE), arguments.cost * 1e12 / arguments.images
    found = []
    for name in schedule_names():
        epochs = cost / macs_per_image(space, load_schedule(name))
        found.append(Training(name, "supernet", epochs, ("--schedule", name)))
    for size, architecture in representatives(space).items():
        file = arguments.out / f"{size}.json"
        write_text(file, json.dumps(architecture.to_json()))
        epochs = cost / (TRAINED * space.macs(architecture))
        found.append(Training(size, "subnet", epochs, ("--from-scratch", "--architecture", str(file))))
    return [training for training in found if training.name in (arguments.only or [training.name])]


def train(arguments: argparse.Namespace, training: Training) -> tuple[dict[str, Any], float]:
    """Run or resume a training. Return the accuracies on test images and the total minutes."""
    out = arguments.out / training.name
    command = [sys.executable, "-m", "ofa_search.train_cli", training.kind, *training.options, *OPTIMIZER]
    command += ["--epochs", f"{training.epochs:.3f}", "--data", arguments.data, "--test-data", arguments.test_data]
    command += ["--device", arguments.device, "--threads", "1", "--seed", str(arguments.seed), "--out", str(out)]
    command += ["--batch", str(arguments.batch)]
    print(" ".join(command), file=sys.stderr, flush=True)
    with (arguments.out / f"{training.name}.log").open("a", encoding="utf-8") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    about = json.loads((out / f"{training.kind}.json").read_text(encoding="utf-8"))
    with (out / "training.csv").open(newline="", encoding="utf-8") as file:
        minutes = float(list(csv.DictReader(file))[-1]["seconds"]) / 60
    print(f"{training.name}: {about['accuracy']['test']}, {minutes:.1f} minutes", file=sys.stderr, flush=True)
    return about["accuracy"]["test"], minutes


def table(done: dict[Training, tuple[dict[str, Any], float]]) -> str:
    """Return a table with one row per supernet, and one row for the networks that were trained alone."""
    lines = [f"| | {' | '.join(REPRESENTATIVES)} | epochs | minutes |", "| --- |" + " ---: |" * 5]
    alone = dict.fromkeys(REPRESENTATIVES, ("-", "-", "-"))
    for training, (accuracy, minutes) in done.items():
        if training.kind == "supernet":
            cells = " | ".join(f"{accuracy[size]:.1%}" for size in REPRESENTATIVES)
            lines.append(f"| `{training.name}` | {cells} | {training.epochs:.1f} | {minutes:.0f} |")
        else:
            alone[training.name] = (f"{accuracy['top1']:.1%}", f"{training.epochs:.1f}", f"{minutes:.0f}")
    accuracies, epochs, times = zip(*alone.values(), strict=True)
    lines.append(f"| each alone | {' | '.join(accuracies)} | {', '.join(epochs)} | {', '.join(times)} |")
    return "\n".join(lines)


def main() -> None:
    """Run all trainings and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", required=True, metavar="PATH")
    parser.add_argument("--test-data", required=True, metavar="PATH")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--cost", type=float, default=80.0, metavar="N", help="10^12 multiply-accumulates per training (default: 80)"
    )
    names = [*schedule_names(), *REPRESENTATIVES]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"only these: {', '.join(names)}")
    parser.add_argument("--images", type=int, default=45_000, metavar="N", help="training images (default: 45000)")
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="images per step (default: 128)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="trainings at the same time (default: 2)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    todo = trainings(arguments)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        print(table(dict(zip(todo, pool.map(partial(train, arguments), todo), strict=True))))


if __name__ == "__main__":
    main()
