"""What the commands of `ofa-train` share: options, data and messages."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_profiler.base.progress import Reporter
from ofa_profiler.cli.options import positive_integer, whole_number
from ofa_profiler.cli.terminal import progress_bar, say
from ofa_profiler.errors import UsageError
from ofa_profiler.verification.plot import can_plot

if TYPE_CHECKING:
    from ofa_search.data.images import DataSplit
    from ofa_search.evaluation.world import World
    from ofa_search.training.trainer import TrainingOptions

PLOT = "training.png"
#: The default (learning rate, weight decay) of each optimizer.
_USUAL = {"adamw": (4e-3, 0.05), "sgd": (0.05, 5e-4)}
_MOST_HELD_OUT = 5000


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for images, cache and results."""
    group = parser.add_argument_group("images and files")
    group.add_argument(
        "--data",
        metavar="PATH",
        type=Path,
        required=True,
        help="training images: a parquet file, a folder of them, or a folder with one folder per class",
    )
    group.add_argument("--test-data", metavar="PATH", type=Path, help="test images; used at the end only")
    add_skip_damaged(group)
    group.add_argument(
        "--held-out",
        metavar="N",
        type=positive_integer,
        help=f"number of training images held out for validation (default: a tenth, at most {_MOST_HELD_OUT})",
    )
    group.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the results")
    group.add_argument(
        "--cache", metavar="DIR", type=Path, help="folder for decoded images (default: images/ in the user's cache)"
    )


def add_skip_damaged(group: argparse._ArgumentGroup) -> None:
    """Add the option for damaged images."""
    group.add_argument("--skip-damaged", action="store_true", help="leave out images that cannot be decoded")


def add_training_arguments(
    parser: argparse.ArgumentParser, *, epochs: str, learning_rate: str, machine: str = ""
) -> None:
    """Add the options of training; `epochs` and `learning_rate` name the defaults.

    `machine` begins the names of the options of the machine, where those without it mean another device.
    """
    group = parser.add_argument_group("training")
    group.add_argument(
        "--epochs", metavar="X", type=positive_number, help=f"passes over the training images (default: {epochs})"
    )
    group.add_argument(
        "--batch",
        metavar="N",
        type=positive_integer,
        default=128,
        help="images per step, over all processes (default: 128)",
    )
    group.add_argument(
        "--optimizer", metavar="NAME", choices=tuple(_USUAL), default="adamw", help="adamw or sgd (default: adamw)"
    )
    group.add_argument(
        "--learning-rate", metavar="X", type=positive_number, help=f"peak learning rate (default: {learning_rate})"
    )
    decays = ", ".join(f"{decay:g} for {name}" for name, (_, decay) in _USUAL.items())
    group.add_argument("--weight-decay", metavar="X", type=number_from_0, help=f"weight decay (default: {decays})")
    group.add_argument(
        "--label-smoothing",
        metavar="X",
        type=share,
        default=0.0,
        help="label smoothing, at least 0 and below 1 (default: %(default)s)",
    )
    group.add_argument(
        "--seed",
        metavar="S",
        type=whole_number,
        default=0,
        help="random seed; equal seeds give equal results (default: 0)",
    )
    group.add_argument("--fresh", action="store_true", help="discard an existing training in --out and start again")
    trains = parser.add_argument_group("machine that trains")
    trains.add_argument(
        f"--{machine}device", metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)"
    )
    trains.add_argument(f"--{machine}threads", metavar="N", type=positive_integer, help="CPU threads per process")
    trains.add_argument("--bf16", action="store_true", help="compute in bfloat16 (for GPUs; slower on CPUs)")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


# --- numbers -----------------------------------------------------------------------------------------


def positive_number(text: str) -> float:
    """For `type=`: above 0."""
    return _number(text, "above 0", lambda value: value > 0)


def number_from_0(text: str) -> float:
    """For `type=`: 0 or more."""
    return _number(text, "of at least 0", lambda value: value >= 0)


def share(text: str) -> float:
    """For `type=`: 0 or more, below 1."""
    return _number(text, "of at least 0 and below 1", lambda value: 0 <= value < 1)


def _number(text: str, what: str, allowed: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and allowed(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number {what}")
    return value


# --- from arguments to a training --------------------------------------------------------------------


def training_options(
    arguments: argparse.Namespace, *, epochs: float, learning_rate: float | None = None
) -> TrainingOptions:
    """The options with defaults filled in: `epochs`, and `learning_rate` or that of the optimizer."""
    from ofa_search.training.trainer import TrainingOptions

    usual_rate, usual_decay = _USUAL[arguments.optimizer]
    return TrainingOptions(
        epochs=arguments.epochs if arguments.epochs is not None else epochs,
        batch=arguments.batch,
        optimizer=arguments.optimizer,
        learning_rate=arguments.learning_rate or learning_rate or usual_rate,
        weight_decay=arguments.weight_decay if arguments.weight_decay is not None else usual_decay,
        label_smoothing=arguments.label_smoothing,
        bf16=arguments.bf16,
        seed=arguments.seed,
    )


def prepare_process(threads: int | None) -> None:
    """Set up torch for training with so many threads, or as many as it takes by itself."""
    import torch

    from ofa_search.training.memory import keep_freed_memory

    keep_freed_memory()
    # Moments of weights that stop learning become denormal numbers, a hundred times slower on a CPU.
    torch.set_flush_denormal(True)
    if threads:
        torch.set_num_threads(threads)


def load_data(
    arguments: argparse.Namespace,
    resolution: int,
    world: World,
    reporter: Reporter | None,
    tell: Callable[[str], None] = say,
) -> DataSplit:
    """Training, held-out and test images for a network with inputs of up to this resolution.

    One process per host decodes them, the others read its cache. The first process
    tells what it understood of the data.
    """
    from ofa_search.data.images import DataSplit, load_images, refuse_shared_files

    load = partial(
        load_images,
        resolution=resolution,
        cache=arguments.cache,
        progress=reporter,
        exclude=[folder for folder in (arguments.out, arguments.cache) if folder is not None],
        skip_damaged=arguments.skip_damaged,
        tell=tell if world.leads else silent,
    )
    with world.one_first():
        images = load(arguments.data)
        test = None
        if arguments.test_data is not None:
            test = load(arguments.test_data, split="test").with_classes(images.classes)
            refuse_shared_files(images, test)
    if arguments.held_out is None and len(images) < 20:
        raise UsageError(
            f"{images.name}: {len(images)} images are too few to hold some out; give --held-out N or more images"
        )
    training, held_out = images.split(arguments.held_out or min(_MOST_HELD_OUT, len(images) // 10))
    return DataSplit(training, held_out, test)


def silent(_line: str) -> None:
    """Say nothing."""


@contextmanager
def progress(world: World) -> Iterator[Reporter | None]:
    """A progress bar in the leading process; nothing in the others."""
    if not world.leads:
        yield None
        return
    with progress_bar() as reporter:
        yield reporter


def draw_log(out: Path, log: str, title: str) -> Path | None:
    """Plot the log in `out`, if matplotlib is installed."""
    if not can_plot():
        return None
    from ofa_search.training.log import plot_log

    plot_log(out / log, out / PLOT, title=title)
    return out / PLOT


def report(arguments: argparse.Namespace, document: dict[str, Any], lines: list[str]) -> None:
    """Print the JSON document to stdout if requested, else the lines to stderr."""
    if arguments.json:
        print(json.dumps(document, indent=2, allow_nan=False), flush=True)
    else:
        for line in lines:
            say(line)


def spell_accuracies(accuracy: dict[str, Any]) -> list[str]:
    """A line for each kind of images, like `test: largest 93.2%, smallest 88.1% of 10000 images`."""
    return [
        f"{kind.replace('_', ' ')}: "
        + ", ".join(f"{name} {value:.2%}" for name, value in measured.items() if name != "images")
        + f" of {measured['images']} images"
        for kind, measured in accuracy.items()
    ]
