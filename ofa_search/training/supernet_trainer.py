"""The training of a supernet: which subnets are trained in a step, and by which teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.genes import RESOLUTION
from ofa_search.data.images import Images
from ofa_search.evaluation.subnets import representatives, subnet_accuracy
from ofa_search.evaluation.world import World
from ofa_search.supernet.elastic import ElasticConv, ElasticKernel, ElasticLinear
from ofa_search.supernet.sorting import sort_channels
from ofa_search.supernet.supernet import Supernet
from ofa_search.training.cost import phase_macs
from ofa_search.training.schedule import Phase, Schedule
from ofa_search.training.trainer import SUBNETS, Trainer, TrainingOptions, between, frozen

#: The kinds of choices of how many channels a layer has.
_WIDTHS = ("expand_ratio", "width_mult", "last_width_mult")


class SupernetTrainer(Trainer):
    """The subnets of a step share its batch, and their gradients are added up."""

    what = "supernet"

    def __init__(
        self, space: SearchSpace, schedule: Schedule, options: TrainingOptions, images: Images, world: World
    ) -> None:
        self.space, self.supernet = space, new_supernet(space, options.seed)
        self.watched = tuple(representatives(space))
        super().__init__(self.supernet, space.preprocessing, schedule, options, images, world)

    def _backward(self, phase: Phase, within: float) -> list[Tensor]:
        rng = self._rng(SUBNETS, self.step)
        resolution = int(rng.choice(phase.resolutions or self.space.resolutions))
        subnets = phase.subnets(self.space, rng)
        pixels, labels = self._batch()
        inputs = self._inputs(pixels, resolution)
        return self._backward_of(phase, subnets, inputs, labels, between(phase.subnet_rate, within))

    def _backward_of(
        self, phase: Phase, subnets: list[Architecture], inputs: Tensor, labels: Tensor, subnet_rate: float
    ) -> list[Tensor]:
        """Subnets run one after the other, so that only one is in memory."""
        soft = self._teach(inputs) if phase.teacher == "full" else None
        losses = []
        for position, architecture in enumerate(subnets):
            is_largest = phase.largest and position == 0
            with self._autocast():
                logits = self.supernet(inputs, architecture).float()
            loss = self._loss(logits, labels, None if is_largest else soft, phase)
            if is_largest and phase.teacher == "largest":
                soft = logits.detach().softmax(1)
            (loss if is_largest else subnet_rate * loss).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        if not (phase.largest or phase.random):
            # Kernel transformations would lead the smallest kernels away from the centres of the larger ones.
            for name, parameter in self.supernet.named_parameters():
                if name.endswith("_matrix"):
                    parameter.grad = None
        return losses

    def cost(self, phase: Phase) -> float:
        return phase_macs(self.space, phase)

    def _begin(self, number: int) -> None:
        phase = self.schedule.phases[number]
        if phase.teacher == "full" and self.teacher is None:
            self.teacher = self._new_teacher()
            # Each process has BatchNorm statistics of its own images. Only those of the first are saved.
            self.world.broadcast(self.teacher.state_dict().values())
        if phase.sort:
            before = self.schedule.phases[number - 1].open_choices(self.space)
            sort_channels(self.supernet, _kept(self.space, before))
            # The momenta belong to the old order of the channels.
            self.optimizer.state.clear()

    def _new_teacher(self) -> nn.Module:
        return frozen(self.supernet.extract(self.space.largest))

    def about(self) -> dict[str, Any]:
        return {"space": self.space.name}

    def accuracies(self, calibration: Images, images: Images) -> dict[str, float]:
        return {
            name: subnet_accuracy(self.supernet, architecture, calibration, images)
            for name, architecture in representatives(self.space).items()
        }


def new_supernet(space: SearchSpace, seed: int) -> Supernet:
    """The initial weights of every training with this seed.

    A block with a shortcut adds nothing at first (arXiv 1706.02677, section 5.1), so deep networks learn
    from the first step on. Wider layers and larger kernels add nothing to the narrowest layers and smallest
    kernels either. So all subnets start as the smallest one. A schedule may train that one first and the
    others later, which then start with what it has learned.
    """
    torch.manual_seed(seed)
    supernet = Supernet(space)
    for module in supernet.modules():
        if isinstance(module, ElasticKernel | ElasticLinear):
            module.begin_as_smallest()
    for slot in space.slots:
        ops = space.slot_ops(slot)
        if all(len(op.graph.branches) > 1 for op in ops):
            last = supernet.elastic_op(slot.name).child(ops[0].graph.branches[0][-1].name)
            if isinstance(last, ElasticConv) and last.bn is not None:
                nn.init.zeros_(last.bn.weight)
    return supernet


def _kept(space: SearchSpace, choices: list[tuple[float, ...]]) -> list[Architecture]:
    """The largest architecture for each of the widths that were trained before."""
    most = max(len(values) for gene, values in zip(space.genes, choices, strict=True) if gene.kind != RESOLUTION)
    rows = [
        [
            values[max(-1 - n, -len(values))] if gene.kind in _WIDTHS else values[-1]
            for gene, values in zip(space.genes, choices, strict=True)
        ]
        for n in range(most)
    ]
    return [space.from_values(row) for row in rows]
