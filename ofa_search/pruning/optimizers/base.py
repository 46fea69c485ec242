"""What an optimizer that prunes is, and what all of them share.

It wraps any optimizer of torch and takes its place in a training loop. Every parameter takes the step of the wrapped
optimizer. In addition, units that a chooser does not keep are led to zero, and stay exactly zero from then on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ofa_search.pruning.groups import Dependencies
from ofa_search.pruning.optimizers.saliency import VALUE, Saliency
from ofa_search.pruning.optimizers.steps import Chooser, PruningSteps
from ofa_search.pruning.optimizers.units import Units

_PRUNING = "pruning"


class PruningOptimizer(torch.optim.Optimizer, ABC):
    """A training with it ends with a network in which what `choose` did not keep is zero, and can be cut out exactly.

        base = torch.optim.SGD(network.parameters(), 0.1)
        optimizer = HESSO(base, network, dependencies, choose, steps=PruningSteps(200, 2000))
        for images, labels in batches:
            loss(network(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

    It shares its parameter groups and its state with `base`: a learning rate scheduler may hold either. Groups of
    parameters and the tensors of the network must be the same for the whole training. `probe` gives the present loss on
    some images, without training on them; without it, optimizers that ask for it do without.
    """

    #: By which users name it.
    name: ClassVar[str]

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
    ) -> None:
        super().__init__(base.param_groups, base.defaults)
        self.base, self.module, self.choose, self.steps, self.probe = base, module, choose, steps, probe
        self._share_state()
        self.units = Units(module, dependencies)
        self.saliency = Saliency(self.units, weights)
        self.done = 0
        #: The step before which the leaving units are zero.
        self._until = 0
        #: The values with which units left, while a later choice may want them again.
        self._left: list[Tensor] = []
        self.leaving, self.removed = (
            torch.zeros(self.units.total, dtype=torch.bool, device=self.units.device) for _ in range(2)
        )

    def _share_state(self) -> None:
        self.param_groups, self.state = self.base.param_groups, self.base.state

    # --- the training loop -------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """The step of the wrapped optimizer for all parameters, and a step towards zero for units that leave."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            self._before()
            self.erase_removed_gradients()
            self.base.step()
            self._lead_to_zero()
            self.done += 1
            if self.done >= self._until:
                self._arrive()
            if self.removed.any():
                self.units.erase(self.removed)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As that of the wrapped optimizer."""
        self.base.zero_grad(set_to_none=set_to_none)

    def erase_removed_gradients(self) -> None:
        """For a norm of the gradients without those of removed units, as the smaller network would have."""
        if self.removed.any():
            self.units.erase_gradients(self.removed)

    @property
    def progress(self) -> float:
        """How much of the pruning phase is done: 0 before, 1 after it."""
        return min(max((self.done - self.steps.start) / self.steps.steps, 0.0), 1.0)

    def kept(self) -> dict[str, NDArray[np.int64]]:
        """The units of each group that are not zero, nor on the way there."""
        return self.units.kept(~(self.removed | self.leaving))

    # --- the parts of a step -----------------------------------------------------------------------

    def _before(self) -> None:
        """Before the step of the wrapped optimizer, with the gradients: sample, and choose where a period begins."""
        if self.steps.samples_at(self.done):
            self.saliency.sample()
        period = self.steps.period_at(self.done)
        if period is not None:
            self._let_go(self._chosen(self.saliency.values(), (period + 1) / self.steps.periods))
            if period + 1 == self.steps.periods:
                self._left = []
            self._until = self.steps.decayed(period)
            self.saliency.clear()

    def _chosen(self, values: Tensor, share: float) -> Tensor:
        """Whether each unit is kept."""
        return self.units.mask(self.choose(self.units.by_group(values), share))

    def _let_go(self, kept: Tensor) -> None:
        """From now on, all units that are not kept leave, if they are not gone.

        One that was gone and is kept now gets the values with which it left: from zero, it could not learn.
        """
        if self._left:
            self.units.put_back(kept & self.removed, self._left)
        self.removed &= ~kept
        self.leaving = ~kept & ~self.removed
        self._left = self.units.copied(self.leaving, self._left)

    @abstractmethod
    def _lead_to_zero(self) -> None:
        """After the step of the wrapped optimizer: bring the leaving units nearer to zero."""

    def _arrive(self) -> None:
        """At the end of the way to zero: all units that were on it are removed."""
        self.removed |= self.leaving
        self.leaving = torch.zeros_like(self.leaving)

    def _decay(self) -> None:
        """Multiply leaving units so that they reach zero in equal steps, with `_until`."""
        left = self._until - self.done
        if left > 0:
            self.units.scale(torch.where(self.leaving, (left - 1) / left, 1.0))

    # --- interruptions -----------------------------------------------------------------------------

    def pruning_state(self) -> dict[str, Tensor]:
        """Where pruning stands, without the parameters and the state of the wrapped optimizer."""
        counters = {"done": torch.tensor(self.done), "until": torch.tensor(self._until)}
        masks = {"leaving": self.leaving, "removed": self.removed}
        saliency = {f"saliency.{name}": tensor for name, tensor in self.saliency.tensors().items()}
        left = {f"left.{number}": tensor for number, tensor in enumerate(self._left)}
        return counters | masks | saliency | left

    def load_pruning_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from there."""
        self.done, self._until = int(tensors["done"]), int(tensors["until"])
        self.leaving.copy_(tensors["leaving"])
        self.removed.copy_(tensors["removed"])
        self.saliency.load({name: tensors[f"saliency.{name}"] for name in self.saliency.tensors()})
        count = sum(name.startswith("left.") for name in tensors)
        self._left = [tensors[f"left.{number}"].to(self.units.device) for number in range(count)]

    def state_dict(self) -> dict[str, Any]:
        """The state of the wrapped optimizer, and of the pruning."""
        pruning = {name: tensor.clone() for name, tensor in self.pruning_state().items()}
        return {**self.base.state_dict(), _PRUNING: pruning}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`; the network must have the parameters that it had then."""
        self.base.load_state_dict({name: value for name, value in state_dict.items() if name != _PRUNING})
        self._share_state()
        self.load_pruning_state(state_dict[_PRUNING])
