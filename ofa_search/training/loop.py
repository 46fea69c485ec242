"""A training from its first step to its last, in a folder from which it can be resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ofa_profiler.base.files import keep_old
from ofa_profiler.base.locks import try_locked
from ofa_profiler.base.progress import Reporter, report
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.spaces import SearchSpace
from ofa_search.data.images import DataSplit, Images
from ofa_search.evaluation.bn_statistics import measure_statistics, plan_subnets
from ofa_search.evaluation.ranges import RANGE_IMAGES, about_range_table, measure_range_table, plan_range_subnets
from ofa_search.evaluation.subnets import (
    CalibratedSubnets,
    calibration_images,
    calibration_of,
    representatives,
    subnet_accuracy,
)
from ofa_search.evaluation.world import World
from ofa_search.supernet.bn_statistics import StatisticsTable
from ofa_search.supernet.checkpoint import Calibration
from ofa_search.supernet.supernet import Supernet, save_supernet
from ofa_search.training.cost import part_done
from ofa_search.training.log import TrainingLog
from ofa_search.training.schedule import Schedule
from ofa_search.training.state import TrainingState
from ofa_search.training.supernet_trainer import SupernetTrainer
from ofa_search.training.trainer import Trainer, TrainingOptions

STATE, LOG, SUPERNET = "training.safetensors", "training.csv", "supernet.safetensors"
LOCK = ".training.lock"
#: Steps between two rows of the log. The training is saved at rows only, so no mean of a row is lost.
LOG_STEPS = 20
SAVE_EVERY_S = 60.0
#: What a supernet file contains for the BatchNorm statistics of its subnets.
IMAGES, TABLE = "images", "table"
#: The most images, and the most bytes, that a supernet file contains.
CARRIED_IMAGES, CARRIED_BYTES = 500, 32 << 20
#: Accuracies are measured after every epoch, but in long trainings about this often in total.
MOST_MEASURED = 20
#: Held-out images for the accuracies in the log. At the end, all of them are used.
WATCHED = 1000


def train_supernet(
    space: SearchSpace,
    schedule: Schedule,
    options: TrainingOptions,
    data: DataSplit,
    out: Path,
    world: World,
    *,
    carry: str = IMAGES,
    fresh: bool = False,
    progress: Reporter | None = None,
) -> Path | None:
    """Train in folder `out`, or resume there.

    The leading process returns the file of the supernet. Other processes return None.

    The file contains some of the training images for the BatchNorm statistics of its subnets (`carry` is
    IMAGES), or a table of statistics (TABLE) where the images may not be published.

    Raises `InputFileError` when `out` holds a training with other options.
    """
    trainer = SupernetTrainer(space, schedule, options, data.training, world)
    description = run_training(trainer, data, out, fresh=fresh, progress=progress)
    supernet = trainer.supernet.eval()
    calibration, about = _carried(supernet, data.training, carry, world, progress)
    ranges, about_ranges = _carried_ranges(supernet, data.training, calibration, world, progress)
    if not world.leads:
        return None
    metadata = {
        "labels": list(data.training.classes),
        "preprocessing": asdict(space.preprocessing),
        "training": description,
        "calibration": about,
        "ranges": about_ranges,
        "accuracy": measure_accuracies(supernet, data, calibration_of(calibration), world.device),
    }
    return save_supernet(
        supernet, out / SUPERNET, dtype=np.float16, metadata=metadata, calibration=calibration, ranges=ranges
    )


def _carried(
    supernet: Supernet, training: Images, carry: str, world: World, progress: Reporter | None
) -> tuple[Calibration, dict[str, Any]]:
    """What calibrates subnets, and its description. All processes take part."""
    if carry == IMAGES:
        count = max(1, min(CARRIED_IMAGES, CARRIED_BYTES // training.image_bytes))
        images = calibration_images(training, count)
        return images.pixels.cpu().numpy(), {"by": IMAGES, "images": len(images)}
    images = calibration_images(training)
    plan = plan_subnets(supernet.space)
    table = measure_statistics(supernet, images.to(world.device), world, plan, progress)
    return table, {"by": TABLE, "subnets": len(plan), "images": len(images)}


def _carried_ranges(
    supernet: Supernet, training: Images, calibration: Calibration, world: World, progress: Reporter | None
) -> tuple[Ranges | None, dict[str, Any] | None]:
    """The ranges for int8, where no images travel that could measure them, and what they are. All take part."""
    if not isinstance(calibration, StatisticsTable):
        return None, None
    weights_of = CalibratedSubnets(supernet, calibration).weights
    plan = plan_range_subnets(supernet.space)
    images = calibration_images(training, RANGE_IMAGES)
    table = measure_range_table(supernet.space, weights_of, images, world, plan, progress)
    return table, about_range_table(plan)


def run_training(
    trainer: Trainer, data: DataSplit, out: Path, *, fresh: bool, progress: Reporter | None = None
) -> dict[str, Any]:
    """Resume from what `out` holds and do the remaining steps -> what was trained and how.

    All processes return together. Raises `InputFileError` when `out` holds a training with other options,
    `UsageError` when another run trains there.
    """
    world = trainer.world
    # As it is read back from the file: tuples become lists.
    description: dict[str, Any] = json.loads(json.dumps(trainer.description(len(data.held_out))))
    with _alone(out, world):
        _begin(trainer, description, out, fresh)
        log = TrainingLog(out / LOG, trainer.step, trainer.watched) if world.leads else None
        watch = _Watch(trainer, data, log, progress)
        saved = time.monotonic()
        while trainer.step < trainer.steps:
            watch.after(trainer.run_step())
            due = time.monotonic() - saved > SAVE_EVERY_S or trainer.step == trainer.steps
            if world.leads and watch.at_row and due:
                trainer.state(description).save(out / STATE)
                saved = time.monotonic()
        world.wait()
    return description


@contextmanager
def _alone(out: Path, world: World) -> Iterator[None]:
    """Within, no other run trains in this folder."""
    with ExitStack() as stack:
        free = True
        if world.leads:
            try:
                out.mkdir(parents=True, exist_ok=True)
                free = stack.enter_context(try_locked(out / LOCK))
            except OSError as error:
                raise UsageError(f"cannot write {error.filename or out}: {error.strerror or error}") from error
        if not (world.agree(free) and free):
            raise UsageError(f"another run is training in {out}: wait for it, or choose another --out")
        yield


def _begin(trainer: Trainer, description: Mapping[str, Any], out: Path, fresh: bool) -> None:
    path = out / STATE
    if fresh and trainer.world.leads:
        keep_old(path)
    trainer.world.wait()
    if path.exists() and not fresh:
        trainer.resume(_saved(path, description))
    if not trainer.world.agree(trainer.step):
        raise UsageError(f"the processes do not see the same {path}: --out must be a folder that all hosts share")


def _saved(path: Path, description: Mapping[str, Any]) -> TrainingState:
    state = TrainingState.load(path)
    differing = [name for name in description if state.options.get(name) != description[name]]
    if differing:
        name = differing[0]
        raise InputFileError(
            path,
            f"belongs to a training with another {name} ({_short(state.options.get(name))}, now "
            f"{_short(description[name])}): choose another --out, or start over with --fresh",
        )
    return state


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


class _Watch:
    """Writes the log and reports progress in the leading process; does nothing in the others."""

    def __init__(self, trainer: Trainer, data: DataSplit, log: TrainingLog | None, progress: Reporter | None) -> None:
        self.trainer, self.log, self.progress = trainer, log, progress
        self.calibration = calibration_images(data.training).to(trainer.world.device)
        self.watched = data.held_out.take(np.arange(min(WATCHED, len(data.held_out)))).to(trainer.world.device)
        self.costs = [trainer.cost(phase) for phase in trainer.schedule.phases]
        self.first_step, self.began = trainer.step, time.monotonic()
        self.seconds = log.seconds if log else 0.0
        self.sums: list[dict[str, float]] = []
        self.row_began = self.began
        self.words = ""

    @property
    def at_row(self) -> bool:
        """Whether the last step completes a row of the log."""
        return self.trainer.step % LOG_STEPS == 0 or self.trainer.step == self.trainer.steps

    def after(self, measured: dict[str, float]) -> None:
        """Record the losses of a step."""
        if self.log is None:
            return
        self.sums.append(measured)
        trainer = self.trainer
        if self.at_row:
            self.log.write(self._row())
            self.sums.clear()
            self.row_began = time.monotonic()
        report(self.progress, "train", trainer.step, trainer.steps, self._left_s(), self.words)

    def _left_s(self) -> float | None:
        """Estimated from the costs of the steps, because a late step can take ten times as long as an early one."""
        trainer = self.trainer
        if trainer.step - self.first_step < 10:
            return None
        before, done = (
            part_done(trainer.schedule, self.costs, step / trainer.steps) for step in (self.first_step, trainer.step)
        )
        return (time.monotonic() - self.began) * (1 - done) / (done - before)

    def _row(self) -> dict[str, object]:
        trainer = self.trainer
        now = time.monotonic()
        count = len(self.sums)
        mean = {name: sum(m[name] for m in self.sums) / count for name in self.sums[0]}
        # The phase of the last step, not of the next one.
        phase = trainer.schedule.phases[trainer.schedule.at((trainer.step - 1) / trainer.steps)[0]]
        row: dict[str, object] = {
            "step": trainer.step,
            "epoch": f"{trainer.step / trainer.steps_per_epoch:.3f}",
            "phase": phase.name,
            "learning_rate": f"{self.sums[-1]['learning_rate'] * trainer.options.learning_rate:.6g}",
            "loss": f"{mean['loss']:.5f}",
            "largest_loss": f"{mean['first_loss']:.5f}" if phase.largest else "",
            "images_per_s": f"{count * trainer.options.batch / (now - self.row_began):.1f}",
        }
        every = max(1, max(trainer.steps_per_epoch, trainer.steps // MOST_MEASURED) // LOG_STEPS * LOG_STEPS)
        if trainer.step % every == 0:
            row |= {name: f"{value:.4f}" for name, value in self._accuracies().items()}
        row["seconds"] = f"{self.seconds + time.monotonic() - self.began:.1f}"
        self.words = f"{phase.name}, loss {mean['loss']:.3f}"
        return row

    def _accuracies(self) -> dict[str, float]:
        with torch.random.fork_rng(devices=[]):
            return self.trainer.accuracies(self.calibration, self.watched)


def measure_accuracies(
    supernet: Supernet, data: DataSplit, calibration: Images | StatisticsTable, device: torch.device
) -> dict[str, Any]:
    """Top-1 of the smallest, a middle and the largest subnet on held-out and test images."""
    measured: dict[str, Any] = {}
    for kind, images in data.measured().items():
        on_device = images.to(device)
        measured[kind] = {
            "images": len(images),
            **{
                name: round(subnet_accuracy(supernet, architecture, calibration, on_device), 4)
                for name, architecture in representatives(supernet.space).items()
            },
        }
    return measured
