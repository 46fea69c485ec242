"""The training of one network of a space, cut out of a trained supernet or of an untrained one."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.torch_modules import StaticNetwork, load_weights
from ofa_profiler.spaces import SearchSpace
from ofa_search.data.images import Images
from ofa_search.evaluation.subnets import BATCH, accuracy, calibrated, calibration_images
from ofa_search.evaluation.world import World
from ofa_search.supernet.depthwise import use_fast_depthwise
from ofa_search.supernet.recalibration import recalibrate
from ofa_search.supernet.supernet import Supernet
from ofa_search.training.schedule import Phase, Schedule
from ofa_search.training.supernet_trainer import new_supernet
from ofa_search.training.trainer import Trainer, TrainingOptions, frozen

ACCURACY = "accuracy"


@dataclass(frozen=True)
class Start:
    """A network to start with, and its origin: JSON that differs for other weights."""

    architecture: Architecture
    network: StaticNetwork
    origin: Mapping[str, Any]


def from_scratch(space: SearchSpace, architecture: Architecture, seed: int) -> Start:
    """The subnet of an untrained supernet, so that it starts like one but is trained alone."""
    return Start(architecture, new_supernet(space, seed).extract(architecture), {"start": "scratch"})


def from_supernet(
    space: SearchSpace, architecture: Architecture, supernet: Supernet, identity: str, seed: int, *, new_classes: bool
) -> Start:
    """The subnet of `supernet`. With `new_classes` it gets a new classifier for the classes of `space`."""
    weights = supernet.weights(architecture)
    if new_classes:
        classifier = space.slots[-1].name + "."
        fresh = new_supernet(space, seed).weights(architecture)
        weights = {name: fresh[name] if name.startswith(classifier) else array for name, array in weights.items()}
    network = StaticNetwork(space.layout(architecture))
    load_weights(network, weights)
    return Start(architecture, network, {"start": identity, "new_classes": new_classes})


def subnet_schedule(epochs: float, *, distill: bool) -> Schedule:
    """A short warm-up, then a learning rate that falls to zero. A teacher counts as much as the labels."""
    taught = {"teacher": "full", "labels": 1.0} if distill else {}
    warm_up = Phase("warm-up", 0.1, learning_rate=(0.1, 1.0), **taught)  # type: ignore[arg-type]
    return Schedule("subnet", epochs, (warm_up, Phase("all", 0.9, learning_rate=(1.0, 0.0), **taught)))  # type: ignore[arg-type]


class SubnetTrainer(Trainer):
    """One architecture at its own resolution. With a `supernet`, its largest subnet is the teacher."""

    what = "subnet"

    def __init__(
        self,
        space: SearchSpace,
        start: Start,
        options: TrainingOptions,
        images: Images,
        world: World,
        supernet: Supernet | None = None,
    ) -> None:
        self.watched, self.space = (ACCURACY,), space
        self.architecture, self.origin = start.architecture, start.origin
        self.subnet = use_fast_depthwise(start.network)
        self.subnet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        schedule = subnet_schedule(options.epochs, distill=supernet is not None)
        super().__init__(self.subnet, space.preprocessing, schedule, options, images, world)
        if supernet is not None:
            calibration = calibration_images(images).to(world.device)
            self.teacher = frozen(calibrated(supernet.to(world.device), space.largest, calibration))

    def _backward(self, phase: Phase, within: float) -> list[Tensor]:  # noqa: ARG002 - nothing changes within a phase
        pixels, labels = self._batch()
        soft = self._teach(self._inputs(pixels, self.space.largest.resolution)) if self.teacher is not None else None
        with self._autocast():
            logits = self.network(self._inputs(pixels, self.architecture.resolution)).float()
        loss = self._loss(logits, labels, soft, phase)
        loss.backward()  # type: ignore[no-untyped-call]
        return [loss.detach()]

    def _new_teacher(self) -> nn.Module:
        assert self.teacher is not None, "made together with the trainer"
        return self.teacher

    def finished(self, calibration: Images) -> StaticNetwork:
        """A copy of the current network with BatchNorm statistics of the calibration images, in eval mode."""
        network = deepcopy(self.subnet)
        resolution = self.architecture.resolution
        recalibrate(network, (self._inputs(pixels, resolution) for pixels, _ in calibration.batches(BATCH)))
        return network

    def accuracies(self, calibration: Images, images: Images) -> dict[str, float]:
        return {ACCURACY: accuracy(self.finished(calibration), self.architecture, self.space, images)}

    def about(self) -> dict[str, Any]:
        return {"space": self.space.name, "architecture": self.architecture.to_json(), **self.origin}
