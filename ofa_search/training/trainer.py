"""What every training has in common: the order of its batches, its steps, and its state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ofa_profiler.errors import UsageError
from ofa_profiler.spaces.base import Preprocessing
from ofa_search.data.batches import augment, prepare
from ofa_search.data.images import Images
from ofa_search.evaluation.world import World
from ofa_search.training.schedule import Phase, Schedule
from ofa_search.training.state import TrainingState, part, prefixed

#: Streams of random numbers; each is drawn from (seed, stream, number).
ORDER, BATCH, SUBNETS, NETWORK = range(4)


@dataclass(frozen=True)
class TrainingOptions:
    """The options that determine the result. `batch` counts the images of a step over all processes."""

    epochs: float
    batch: int = 128
    optimizer: str = "adamw"
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    clip: float = 2.0
    label_smoothing: float = 0.0
    bf16: bool = False
    seed: int = 0


_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": partial(torch.optim.AdamW, betas=(0.9, 0.99)),
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}


class Trainer(ABC):
    """Trains a network by a schedule. All processes of `world` hold the same network.

    `step` counts the steps that are done, and `run_step` does the next one. `state` saves a point of the
    training, and `resume` continues from it. Everything random is drawn from the seed and the step number.
    """

    #: What is trained, as the file of its state names it.
    what: str
    #: The names of what `accuracies` measures.
    watched: tuple[str, ...]
    #: That of the inputs.
    memory_format = torch.channels_last

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        schedule: Schedule,
        options: TrainingOptions,
        images: Images,
        world: World,
    ) -> None:
        if len(images) < options.batch:
            raise UsageError(
                f"{images.name}: {len(images)} images to train on do not fill a batch of {options.batch}; "
                "choose a smaller --batch"
            )
        if options.batch % world.size:
            raise UsageError(f"a batch of {options.batch} images cannot be dealt evenly to {world.size} processes")
        self.preprocessing, self.schedule, self.options, self.world = preprocessing, schedule, options, world
        self.images = images.to(world.device)
        self.network = network.to(world.device).train()
        self.teacher: nn.Module | None = None
        self.steps_per_epoch = len(images) // options.batch
        self.steps = max(1, ceil(options.epochs * self.steps_per_epoch))
        self.optimizer = self._optimizer()
        self.step = 0
        self._order = lru_cache(1)(self._order_of)

    def _optimizer(self) -> torch.optim.Optimizer:
        """Weight decay is for the weights of layers alone, neither for BatchNorm nor kernel transformations."""
        decayed: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in self.network.named_parameters():
            decays = parameter.ndim > 1 and not name.endswith("_matrix")
            (decayed if decays else others).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.options.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return _OPTIMIZERS[self.options.optimizer](groups, lr=self.options.learning_rate)

    # --- one step --------------------------------------------------------------------------------

    def run_step(self) -> dict[str, float]:
        """Train on the next batch -> the mean of the losses, and the first loss.

        Raises `UsageError` when the training has diverged.
        """
        number, within = self.schedule.at(self.step / self.steps)
        phase = self.schedule.phases[number]
        if self.step and number != self.schedule.at((self.step - 1) / self.steps)[0]:
            self._begin(number)
        rate = between(phase.learning_rate, within)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * self.options.learning_rate
        measured = torch.stack(self._backward(phase, within))
        self.world.average_gradients(self.network)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.world.average([measured])
        losses = measured.tolist()
        if not np.isfinite(losses).all():
            raise UsageError(
                f"the training has diverged: a loss of step {self.step} is not finite; lower the learning rate"
            )
        return {"loss": float(np.mean(losses)), "first_loss": losses[0], "learning_rate": rate}

    @abstractmethod
    def _backward(self, phase: Phase, within: float) -> list[Tensor]:
        """Add up the gradients of the next step -> its losses. `within` in [0, 1) is its position in the phase."""

    def _begin(self, number: int) -> None:  # noqa: B027 - not every training has something to do
        """Called once, before phase `number`."""

    def cost(self, phase: Phase) -> float:  # noqa: ARG002
        """The cost of a step of `phase` relative to the other phases, for estimates of time."""
        return 1.0

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What is trained, as JSON."""

    @abstractmethod
    def accuracies(self, calibration: Images, images: Images) -> dict[str, float]:
        """Top-1 in [0, 1] on `images`, by the names in `watched`."""

    def _loss(self, logits: Tensor, labels: Tensor, soft: Tensor | None, phase: Phase) -> Tensor:
        """From the labels, or from a teacher's probabilities and, if the phase says so, the labels too."""
        if soft is None:
            return functional.cross_entropy(logits, labels, label_smoothing=self.options.label_smoothing)
        loss = functional.cross_entropy(logits, soft)
        if phase.labels:
            loss = (loss + phase.labels * functional.cross_entropy(logits, labels)) / (1.0 + phase.labels)
        return loss

    @torch.no_grad()
    def _teach(self, inputs: Tensor) -> Tensor:
        """The teacher's probabilities."""
        assert self.teacher is not None, "a phase with a teacher begins with making it"
        with self._autocast():
            outputs: Tensor = self.teacher(inputs)
        return outputs.float().softmax(1)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.options.bf16)

    def _batch(self) -> tuple[Tensor, Tensor]:
        """The pixels (randomly changed) and labels of this process in the next batch. Every epoch has its own order."""
        epoch, position = divmod(self.step, self.steps_per_epoch)
        batch = self.options.batch
        order = self._order(epoch)[position * batch : (position + 1) * batch]
        mine = self.images.take(order[self.world.share(batch)])
        # Each process has random numbers of its own. A process alone has those of the first.
        return augment(mine.pixels, self._rng(BATCH, self.step, self.world.rank)), mine.labels

    def _inputs(self, pixels: Tensor, resolution: int | None) -> Tensor:
        inputs = prepare(pixels, resolution, self.preprocessing)
        return inputs.contiguous(memory_format=self.memory_format)

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        return self._rng(ORDER, epoch).permutation(len(self.images))

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.options.seed, *stream])

    # --- interruptions ---------------------------------------------------------------------------

    def description(self, held_out: int) -> dict[str, Any]:
        """What is trained and how, as JSON. A run may resume another one only if both have the same description."""
        return {
            **self.about(),
            "classes": list(self.images.classes),
            "images": len(self.images),
            "held_out": held_out,
            "processes": self.world.size,
            **asdict(self.options),
            "schedule": self.schedule.name,
            "phases": [asdict(phase) for phase in self.schedule.phases],
        }

    def state(self, description: Mapping[str, Any]) -> TrainingState:
        """The current point of the training."""
        tensors = prefixed(self.what, self.network.state_dict())
        for name, parameter in self.network.named_parameters():
            tensors |= prefixed(f"optimizer.{name}", self.optimizer.state.get(parameter, {}))
        if self.teacher is not None:
            tensors |= prefixed("teacher", self.teacher.state_dict())
        return TrainingState(self.step, description, tensors)

    def resume(self, state: TrainingState) -> None:
        """Continue from that point. It must have the description of this training."""
        self.step = state.step
        self.network.load_state_dict(part(state.tensors, self.what))
        self.optimizer.state.clear()
        for name, parameter in self.network.named_parameters():
            if moments := part(state.tensors, f"optimizer.{name}"):
                # A count of steps stays on the CPU, as the optimizers keep it.
                self.optimizer.state[parameter] = {
                    key: tensor if tensor.ndim == 0 else tensor.to(parameter.device) for key, tensor in moments.items()
                }
        if teacher := part(state.tensors, "teacher"):
            self.teacher = self._new_teacher()
            self.teacher.load_state_dict(teacher)

    @abstractmethod
    def _new_teacher(self) -> nn.Module:
        """A network of the teacher's shape."""


def frozen(network: nn.Module, memory_format: torch.memory_format = torch.channels_last) -> nn.Module:
    """The same network for inference only: no gradients, and by default in the fastest format."""
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.eval().to(memory_format=memory_format)  # type: ignore[call-overload, no-any-return]


def between(pair: tuple[float, float], within: float) -> float:
    """Linear interpolation between the two numbers, at `within` in [0, 1]."""
    return pair[0] + (pair[1] - pair[0]) * within
