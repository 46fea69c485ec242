"""Which way of training is best at equal cost.

    python benchmarks/schedules.py --data TRAIN.parquet --test-data TEST.parquet --out DIR

Trains cifar-mbv3 by every schedule that ships, and its smallest, middle and largest subnet alone from scratch. Each
of these trainings costs the same: COST multiply-accumulates in passes through networks (`--cost`, in 10^12), where a
step forward and backward counts three times a pass forward. So the networks alone have, together, three times what a
supernet has. The optimizer is the same for all (SGD), and no option is tuned for a row.

The table is in GitHub's Markdown: top-1 on the test images, epochs, and minutes by the clock. Every training is
resumable: interrupted, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from ofa_profiler import get_space
from ofa_profiler.files import write_text
from ofa_search.training.cost import TRAINED, macs_per_image
from ofa_search.training.evaluation import REPRESENTATIVES, representatives
from ofa_search.training.schedule import load_schedule, schedule_names

SPACE = "cifar-mbv3"
OPTIMIZER = ("--optimizer", "sgd", "--learning-rate", "0.08", "--weight-decay", "5e-4")


def train(arguments: argparse.Namespace, kind: str, out: Path, *options: str) -> float:
    """Run `ofa-train`, in as many processes as asked -> minutes that it took, earlier runs included."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(arguments.processes), "-m"]
    command = [sys.executable, *launcher, "ofa_search.train_cli", kind, *options, "--out", str(out)]
    command += ["--data", arguments.data, "--test-data", arguments.test_data, *OPTIMIZER]
    command += ["--device", arguments.device, "--threads", "1", "--seed", str(arguments.seed)]
    print(" ".join(command), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    with (out / "training.csv").open(newline="", encoding="utf-8") as file:
        return float(list(csv.DictReader(file))[-1]["seconds"]) / 60


def row(name: str, accuracies: dict[str, float], epochs: str, minutes: float) -> str:
    """A row of the table."""
    cells = [f"{accuracies[size]:.2%}" if size in accuracies else "" for size in REPRESENTATIVES]
    return f"| {name} | {' | '.join(cells)} | {epochs} | {minutes:.1f} |"


def main() -> None:
    """Train everything and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", required=True, metavar="PATH")
    parser.add_argument("--test-data", required=True, metavar="PATH")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--cost", type=float, default=100.0, metavar="N", help="10^12 multiply-accumulates per training"
    )
    parser.add_argument("--images", type=int, default=45_000, metavar="N", help="training images (default: CIFAR-10's)")
    parser.add_argument("--schedules", nargs="+", default=schedule_names(), metavar="NAME")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    space, cost = get_space(SPACE), arguments.cost * 1e12
    lines = [f"| | {' | '.join(REPRESENTATIVES)} | epochs | minutes |", "| --- |" + " ---: |" * 5]
    for name in arguments.schedules:
        epochs = cost / macs_per_image(space, load_schedule(name)) / arguments.images
        out = arguments.out / name
        minutes = train(arguments, "supernet", out, "--schedule", name, "--epochs", f"{epochs:.3f}")
        about = json.loads((out / "supernet.json").read_text(encoding="utf-8"))
        lines.append(row(name, about["accuracy"]["test"], f"{epochs:.1f}", minutes))
    alone: dict[str, float] = {}
    all_epochs, all_minutes = [], 0.0
    for size, architecture in representatives(space).items():
        file, out = arguments.out / f"{size}.json", arguments.out / size
        write_text(file, json.dumps(architecture.to_json()))
        epochs = cost / (TRAINED * space.macs(architecture)) / arguments.images
        options = ("--from-scratch", "--architecture", str(file), "--epochs", f"{epochs:.3f}")
        all_minutes += train(arguments, "subnet", out, *options)
        alone[size] = json.loads((out / "subnet.json").read_text(encoding="utf-8"))["accuracy"]["test"]["top1"]
        all_epochs.append(f"{epochs:.1f}")
    lines.append(row("each alone", alone, ", ".join(all_epochs), all_minutes))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
