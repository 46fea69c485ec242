"""The training in which a network is pruned: one training, at whose end what is not kept is exactly zero."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ofa_profiler.base.progress import Reporter
from ofa_profiler.errors import UsageError
from ofa_profiler.spaces.base import Preprocessing
from ofa_search.data.batches import prepare
from ofa_search.data.images import DataSplit, Images
from ofa_search.evaluation.formats import memory_format_of, use_fastest_format
from ofa_search.evaluation.subnets import calibration_images, network_accuracy, prepared
from ofa_search.evaluation.world import World
from ofa_search.pruning.groups import Dependencies
from ofa_search.pruning.optimizers import (
    DEFAULT_PRUNING_OPTIMIZER,
    END,
    PERIODS,
    START,
    VALUE,
    Chooser,
    PruningOptimizer,
    get_pruning_optimizer,
    pruning_steps,
)
from ofa_search.supernet.depthwise import fast_depthwise
from ofa_search.supernet.recalibration import recalibrate
from ofa_search.training.choices import Choices
from ofa_search.training.loop import run_training
from ofa_search.training.schedule import Phase, Schedule
from ofa_search.training.state import TrainingState, part, prefixed
from ofa_search.training.trainer import NETWORK, Trainer, TrainingOptions, frozen

ACCURACY = "accuracy"
CHOICES = "choices.json"
#: The share of the training in which the learning rate rises.
WARM_UP = 0.05
#: Images by which optimizers probe the loss.
PROBED = 250


@dataclass(frozen=True)
class PruningOptions:
    """How a network is pruned. `start` and `end` are shares of the training, and `weights` those of the scores of
    saliency. With `distill`, the network as it was teaches the pruned one."""

    optimizer: str = DEFAULT_PRUNING_OPTIMIZER
    start: float = START
    end: float = END
    periods: int = PERIODS
    samples: int = 20
    weights: Mapping[str, float] = field(default_factory=lambda: dict(VALUE))
    distill: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise UsageError(f"pruning cannot go from {self.start:g} to {self.end:g} of the training")


@dataclass(frozen=True, eq=False)
class PrunableNetwork:
    """A trained network, its groups, the inputs that it takes, and its origin: JSON for its description."""

    module: nn.Module
    dependencies: Dependencies
    preprocessing: Preprocessing
    resolution: int | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class PrunedNetwork:
    """The trained network in eval mode, in which what is not kept is zero, what is kept, and what was done, as JSON."""

    module: nn.Module
    kept: Mapping[str, NDArray[np.int64]]
    description: Mapping[str, Any]


def train_pruned(
    network: PrunableNetwork,
    choose: Chooser,
    options: TrainingOptions,
    pruning: PruningOptions,
    data: DataSplit,
    out: Path,
    world: World,
    *,
    fresh: bool = False,
    progress: Reporter | None = None,
) -> PrunedNetwork:
    """Train in folder `out`, or resume there; the module of `network` is trained in place, and returned.

    Only the leading process asks `choose`. Raises `InputFileError` when `out` holds a training with other options,
    `UsageError` when the training diverges.
    """
    with fast_depthwise(network.module):
        trainer = PruningTrainer(network, choose, options, pruning, data.training, world)
        trainer.choices.remember(out / CHOICES, trainer.description(len(data.held_out)), fresh=fresh)
        description = run_training(trainer, data, out, fresh=fresh, progress=progress)
    trainer.calibrate(trainer.network, calibration_images(data.training).to(world.device))
    return PrunedNetwork(trainer.network, trainer.optimizer.kept(), description)


def pruning_schedule(epochs: float, pruning: PruningOptions) -> Schedule:
    """A learning rate that rises for a short time and then falls to zero; a teacher counts as much as the labels."""
    taught: dict[str, Any] = {"teacher": "full", "labels": 1.0} if pruning.distill else {}
    bounds = sorted({0.0, WARM_UP, pruning.start, pruning.end, 1.0})
    rates = np.interp(bounds, [0.0, WARM_UP, 1.0], [0.1, 1.0, 0.0]).tolist()
    phases = []
    for first, last, begin, end in zip(bounds, bounds[1:], rates, rates[1:], strict=False):
        prunes, before = pruning.start <= first < pruning.end, first < pruning.start
        name = "prune" if prunes else "warm-up" if before else "recover"
        phases.append(Phase(name, last - first, learning_rate=(begin, end), **taught))
    return Schedule("pruning", epochs, tuple(phases))


class PruningTrainer(Trainer):
    """A network of any origin on labelled images, by one of the optimizers that prune."""

    what = "network"
    optimizer: PruningOptimizer

    def __init__(
        self,
        network: PrunableNetwork,
        choose: Chooser,
        options: TrainingOptions,
        pruning: PruningOptions,
        images: Images,
        world: World,
    ) -> None:
        self.watched = (ACCURACY,)
        self.pruning, self.dependencies, self.resolution = pruning, network.dependencies, network.resolution
        self.choices = Choices(choose, network.dependencies, world)
        network.module.to(world.device)
        # A function that draws weights at random gives each process others.
        world.broadcast(network.module.state_dict().values())
        self._origin = {**network.origin, "weights": _digest(network.module)}
        self._probe_images = calibration_images(images, PROBED).to(world.device)
        example = prepare(self._probe_images.pixels[:2], network.resolution, network.preprocessing)
        self.memory_format = memory_format_of(use_fastest_format(network.module, example))
        schedule = pruning_schedule(options.epochs, pruning)
        super().__init__(network.module, network.preprocessing, schedule, options, images, world)
        self._check_outputs()
        if pruning.distill:
            self.teacher = frozen(deepcopy(self.network), self.memory_format)

    def _check_outputs(self) -> None:
        classes = len(self.images.classes)
        self.network.eval()
        with torch.no_grad():
            outputs = self.network(self._inputs(self._probe_images.take(slice(0, 2)).pixels, self.resolution))
        self.network.train()
        shape = tuple(outputs.shape[1:]) if isinstance(outputs, Tensor) else None
        if shape != (classes,):
            given = f"outputs of shape {shape}" if shape is not None else f"a {type(outputs).__name__}"
            raise UsageError(f"the network gives {given} per image, but {self.images.name} has {classes} classes")

    def _optimizer(self) -> PruningOptimizer:
        pruning = self.pruning
        return get_pruning_optimizer(pruning.optimizer)(
            super()._optimizer(),
            self.network,
            self.dependencies,
            self.choices,
            steps=pruning_steps(self.steps, pruning.start, pruning.end, pruning.periods, pruning.samples),
            weights=pruning.weights,
            probe=self._probe,
        )

    def _backward(self, phase: Phase, within: float) -> list[Tensor]:  # noqa: ARG002 - nothing changes within a phase
        pixels, labels = self._batch()
        inputs = self._inputs(pixels, self.resolution)
        # For dropout and the like in the network, which draw from torch's own generator.
        torch.manual_seed(int(self._rng(NETWORK, self.step, self.world.rank).integers(1 << 63)))
        soft = self._teach(inputs) if self.teacher is not None else None
        with self._autocast():
            outputs = self.network(inputs)
        # Those of auxiliary classifiers, which exist in training alone, come after the outputs.
        logits = (outputs[0] if isinstance(outputs, tuple | list) else outputs).float()
        loss = self._loss(logits, labels, soft, phase)
        loss.backward()  # type: ignore[no-untyped-call]
        # Gradients are clipped by their norm, in which removed units have no part.
        self.optimizer.erase_removed_gradients()
        return [loss.detach()]

    @torch.no_grad()
    def _probe(self) -> float:
        """The loss on a few training images, as in inference."""
        self.network.eval()
        with self._autocast():
            logits = self.network(self._inputs(self._probe_images.pixels, self.resolution)).float()
        self.network.train()
        return float(functional.cross_entropy(logits, self._probe_images.labels))

    def _new_teacher(self) -> nn.Module:
        assert self.teacher is not None, "made together with the trainer"
        return self.teacher

    def calibrate(self, network: nn.Module, calibration: Images) -> None:
        """Give it the BatchNorm statistics of the calibration images, if it has any, and leave it in eval mode."""
        network.eval()
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
            inputs = prepared(calibration, self.preprocessing, self.resolution, memory_format=memory_format_of(network))
            recalibrate(network, inputs)

    def accuracies(self, calibration: Images, images: Images) -> dict[str, float]:
        network = deepcopy(self.network)
        self.calibrate(network, calibration)
        return {ACCURACY: network_accuracy(network, images, self.preprocessing, self.resolution)}

    def about(self) -> dict[str, Any]:
        return {
            **self._origin,
            "groups": [[group.name, group.kind, group.n_units] for group in self.dependencies.groups],
            "preprocessing": asdict(self.preprocessing),
            "resolution": self.resolution,
            "pruning": asdict(self.pruning),
        }

    # --- interruptions ---------------------------------------------------------------------------

    def state(self, description: Mapping[str, Any]) -> TrainingState:
        state = super().state(description)
        own = prefixed("pruning", self.optimizer.pruning_state()) | {"choices": torch.tensor(self.choices.made)}
        return TrainingState(state.step, state.options, {**state.tensors, **own})

    def resume(self, state: TrainingState) -> None:
        super().resume(state)
        self.optimizer.load_pruning_state(part(state.tensors, "pruning"))
        self.choices.made = int(state.tensors["choices"])


def _digest(module: nn.Module) -> str:
    """SHA-256 of all weights."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
