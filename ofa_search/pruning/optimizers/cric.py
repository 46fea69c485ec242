"""HESSO-CRIC: HESSO with a corrective cycle against collapse (Chen et al., arXiv 2409.09085).

Saliency by gradients is that of a small step. Units without which a network collapses may have little of it, and once
they are gone it does not recover. So what shall go is first decayed in a trial, in which the saliency is measured on
the way to zero, and then restored. If other units shall go then, they have a trial too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ofa_search.pruning.groups import Dependencies
from ofa_search.pruning.optimizers.hesso import HESSO
from ofa_search.pruning.optimizers.saliency import VALUE, normalised
from ofa_search.pruning.optimizers.steps import Chooser, PruningSteps

#: A trial asks for nearly all of the way, because the answer to all of it is final, and may be measured on a device.
NEARLY = math.nextafter(1.0, 0.0)
#: The shares of the least salient units of a group for which the loss is probed.
_PROBED = (0.25, 0.5, 0.75)
#: Trials take at most one over this of the pruning phase.
_PART = 4
_SNAPSHOT = "snapshot."


class HESSOCRIC(HESSO):
    """At most `cycles` trials, in the first quarter of the pruning phase, until at most the share `tolerance` of all
    units would have to be tried. It chooses for the last time after them, so `steps` counts as one period."""

    name = "hesso-cric"

    def __init__(
        self,
        base: torch.optim.Optimizer,
        module: nn.Module,
        dependencies: Dependencies,
        choose: Chooser,
        *,
        steps: PruningSteps,
        weights: Mapping[str, float] = VALUE,
        probe: Callable[[], float] | None = None,
        cycles: int = 5,
        tolerance: float = 0.01,
    ) -> None:
        once = PruningSteps(steps.start, steps.steps, 1, steps.samples)
        super().__init__(base, module, dependencies, choose, steps=once, weights=weights, probe=probe)
        self.cycles = min(cycles, once.steps // _PART)
        self.cycle_steps = once.steps // (_PART * self.cycles) if self.cycles else 0
        self.tolerance = tolerance
        self._names = {id(parameter): name for name, parameter in module.named_parameters()}
        #: The network and the state of `base` before the trials; empty when there is no trial.
        self._snapshot: dict[str, Tensor] = {}
        self._cycle = 0
        self._sum, self._loss = (torch.zeros(self.units.total, device=self.units.device) for _ in range(2))
        self._tried = torch.zeros_like(self.leaving)

    # --- trials ------------------------------------------------------------------------------------

    def _before(self) -> None:
        if self._snapshot:
            self.saliency.sample(self._before_trials)
            return
        if self.steps.samples_at(self.done):
            self.saliency.sample()
        if self.done == self.steps.start:
            self._begin_trials()

    def _begin_trials(self) -> None:
        values = self.saliency.values()
        self.saliency.clear()
        self._sum += values
        self._snapshot = self._taken()
        if self.probe is not None:
            self._loss.copy_(self._probed(values, self.probe))
        if self.cycles:
            self._try(~self._chosen(self._mean(), NEARLY))
        else:
            self._conclude()

    def _arrive(self) -> None:
        if not self._snapshot:
            super()._arrive()
            return
        self._sum += self.saliency.values(self._before_trials)
        self.saliency.clear()
        self._restore()
        self._cycle += 1
        new = ~self._chosen(self._mean(), NEARLY) & ~self._tried
        if self._cycle == self.cycles or int(new.sum()) <= self.tolerance * self.units.total:
            self._conclude()
        else:
            self._try(new)

    def _try(self, units: Tensor) -> None:
        self.leaving = units
        self._tried |= units
        self._until = self.done + self.cycle_steps

    def _conclude(self) -> None:
        """Choose for the last time, by the saliency of all cycles."""
        self._snapshot = {}
        self._let_go(self._chosen(self._mean(), 1.0))
        self._left = []
        self._until = self.steps.decayed(0)

    def _mean(self) -> Tensor:
        return self._sum / (self._cycle + 1) + normalised(self._loss)

    def _before_trials(self, parameter: Tensor) -> Tensor:
        return self._snapshot[f"module.{self._names[id(parameter)]}"]

    def _probed(self, values: Tensor, probe: Callable[[], float]) -> Tensor:
        """For each unit: how much the loss rises, relatively, without it and the less salient ones of its group."""
        least, first = max(probe(), torch.finfo(torch.float32).tiny), 0
        rises = torch.zeros_like(values)
        for count in self.units.counts:
            order = first + torch.argsort(values[first : first + count], stable=True)
            done = 0
            for share in _PROBED:
                end = count if share == _PROBED[-1] else round(share * count)
                without = torch.zeros_like(self.removed)
                without[order[: round(share * count)]] = True
                self.units.erase(without)
                rises[order[done:end]] = max(0.0, min(probe() / least - 1.0, 1e6))
                self._restore()
                done = end
            first += count
        return rises

    # --- the state before the trials ---------------------------------------------------------------

    def _taken(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self._present().items()}

    def _present(self) -> dict[str, Tensor]:
        """All tensors of the network and of the wrapped optimizer."""
        tensors = {f"module.{name}": tensor.detach() for name, tensor in self.module.named_parameters()}
        tensors |= {f"module.{name}": tensor for name, tensor in self.module.named_buffers()}
        for number, parameter in enumerate(self._stepped()):
            for key, value in self.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"base.{number}.{key}"] = value
        return tensors

    def _stepped(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _restore(self) -> None:
        for name, tensor in self._present().items():
            if name in self._snapshot:
                tensor.copy_(self._snapshot[name])
        for number, parameter in enumerate(self._stepped()):
            state = self.state.get(parameter, {})
            # What the trial brought about was not there before.
            for key in [key for key in state if f"base.{number}.{key}" not in self._snapshot]:
                del state[key]

    # --- interruptions -----------------------------------------------------------------------------

    def pruning_state(self) -> dict[str, Tensor]:
        own = {"cycle": torch.tensor(self._cycle), "sum": self._sum, "loss": self._loss, "tried": self._tried}
        snapshot = {_SNAPSHOT + name: tensor for name, tensor in self._snapshot.items()}
        return super().pruning_state() | own | snapshot

    def load_pruning_state(self, tensors: Mapping[str, Tensor]) -> None:
        super().load_pruning_state(tensors)
        self._cycle = int(tensors["cycle"])
        for own, name in ((self._sum, "sum"), (self._loss, "loss"), (self._tried, "tried")):
            own.copy_(tensors[name])
        self._snapshot = {
            name.removeprefix(_SNAPSHOT): tensor.to(self.units.device, copy=True)
            for name, tensor in tensors.items()
            if name.startswith(_SNAPSHOT)
        }
