"""`ofa-train supernet`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_profiler.cli.options import space_words
from ofa_profiler.spaces import get_space
from ofa_search.cli import train_options as common
from ofa_search.supernet.description import read_description

if TYPE_CHECKING:
    from ofa_search.evaluation.world import World
    from ofa_search.training.schedule import Schedule

HELP = "train a supernet from images"
DESCRIPTION = """\
Train a supernet: the weights of all networks of a search space at once. DIR gets supernet.safetensors, the
log training.csv and its plot. After an interruption, even by kill -9, run the same command again: it resumes.
"""
EXAMPLES = """\
examples:
  ofa-train supernet --data cifar10/train.parquet --test-data cifar10/test.parquet --out out/supernet
  ofa-train supernet --data photos/ --out out/photos --space ofa-mbv3-w1.0 --bf16 --batch 512
  ofa-train supernet --data cifar10/ --out out/supernet --schedule my-schedule.yaml --epochs 30
  torchrun --nproc-per-node 4 -m ofa_search.train_cli supernet --data photos/ --out out/photos

photos/ contains one folder per class, or train/ and test/ with such folders.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--space", metavar="NAME", default="cifar-mbv3", help=f"{space_words()} (default: %(default)s)")
    parser.add_argument(
        "--schedule",
        metavar="NAME|FILE",
        default="deps",
        help="cifar-cpu, deps, progressive, sandwich, or a YAML file of the same format (default: %(default)s)",
    )
    common.add_data_arguments(parser)
    parser.add_argument(
        "--carry",
        metavar="WHAT",
        choices=("images", "table"),
        default="images",
        help="what the file contains for the BatchNorm statistics of subnets: some training images, or a table of "
        "statistics if the images may not be distributed (default: %(default)s)",
    )
    common.add_training_arguments(parser, epochs="those of the schedule", learning_rate="0.004 for adamw, 0.05 for sgd")


def run(arguments: Namespace) -> int:
    """Train and report -> the exit code."""
    from ofa_search.evaluation.world import join_world
    from ofa_search.training.schedule import load_schedule

    schedule = load_schedule(arguments.schedule)
    get_space(arguments.space)
    common.prepare_process(arguments.threads)
    with join_world(arguments.device) as world:
        path = _train(arguments, schedule, world)
    if path is not None:
        _report(arguments, path)
    return 0


def _train(arguments: Namespace, schedule: Schedule, world: World) -> Path | None:
    from ofa_search.training.loop import train_supernet

    space = get_space(arguments.space)
    with common.progress(world) as reporter:
        data = common.load_data(arguments, max(space.valid_resolutions), world, reporter)
        return train_supernet(
            space.with_classes(len(data.training.classes)),
            schedule,
            common.training_options(arguments, epochs=schedule.epochs),
            data,
            arguments.out,
            world,
            carry=arguments.carry,
            fresh=arguments.fresh,
            progress=reporter,
        )


def _report(arguments: Namespace, path: Path) -> None:
    from ofa_search.training.loop import LOG

    description = read_description(path).json
    plot = common.draw_log(path.parent, LOG, f"{description['space']}, {description['training']['schedule']}")
    document: dict[str, Any] = {
        "supernet": str(path),
        "log": str(path.parent / LOG),
        "plot": str(plot) if plot is not None else None,
        "space": description["space"],
        "labels": description["labels"],
        "accuracy": description["accuracy"],
    }
    common.report(arguments, document, [*common.spell_accuracies(description["accuracy"]), f"written to {path}"])
