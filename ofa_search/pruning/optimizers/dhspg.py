"""DHSPG: dual half-space projected gradient, the optimizer of OTOv2 (Chen et al., arXiv 2303.06862)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ofa_search.pruning.groups import Dependencies
from ofa_search.pruning.optimizers.base import PruningOptimizer
from ofa_search.pruning.optimizers.saliency import VALUE
from ofa_search.pruning.optimizers.steps import Chooser, PruningSteps


class DHSPG(PruningOptimizer):
    """Units that leave are penalised by their length, and become zero where a step leaves their half-space.

    With `x` a unit, `g` its gradient and `x'` what the step of the wrapped optimizer and the penalty make of it:
    `x' -= rate * penalty * x / |x|`, and the unit becomes zero if `x'.x < epsilon |x|^2`. The penalty is larger for
    units whose gradient leads away from zero, between the bounds in which the objective still falls. In the last
    `finish` of a period, units that are not zero yet are decayed in equal steps as by HESSO, so that all of them go.
    """

    name = "dhspg"

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
        penalty: float = 1e-3,
        amplify: float = 2.0,
        most: float = 10.0,
        epsilon: float = 0.0,
        finish: float = 0.5,
    ) -> None:
        super().__init__(base, module, dependencies, choose, steps=steps, weights=weights, probe=probe)
        self.penalty, self.amplify, self.most, self.epsilon, self.finish = penalty, amplify, most, epsilon, finish
        self._finish_steps = max(1, round(finish * steps.steps / steps.periods))
        self._old: list[Tensor] = []
        self._x_g = self._g_g = self._x_x = torch.zeros_like(self.units.sizes)

    def _before(self) -> None:
        super()._before()
        if self.leaving.any():
            self._old = [slices.tensor.detach().clone() for slices in self.units.parameters]
            self._x_x = self.units.sums(torch.square)
            self._x_g = self.units.sums(lambda x: None if x.grad is None else x * x.grad)
            self._g_g = self.units.sums(lambda x: None if x.grad is None else x.grad.square())

    def _lead_to_zero(self) -> None:
        if not self._old:
            return
        old = {id(slices.tensor): tensor for slices, tensor in zip(self.units.parameters, self._old, strict=True)}
        self._old = []
        lengths = self._x_x.sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        shrink = torch.where(self.leaving, self._penalties(lengths) / lengths, 0.0)
        rates = {id(parameter): group["lr"] for group in self.param_groups for parameter in group["params"]}
        for slices in self.units.parameters:
            # A frozen parameter has no rate of its own.
            rate = float(rates.get(id(slices.tensor), 0.0))
            slices.tensor.sub_(rate * slices.spread(shrink, 0.0) * old[id(slices.tensor)])
        inner = self.units.sums(lambda x: x * old[id(x)])
        gone = self.leaving & (inner < self.epsilon * self._x_x)
        self.removed |= gone
        self.leaving &= ~gone
        if self._until - self.done <= self._finish_steps:
            self._decay()

    def _penalties(self, lengths: Tensor) -> Tensor:
        """More than `lower` makes a unit shorter to the first order, less than `upper` keeps the loss falling."""
        away = self._x_g < 0
        lower = -self._x_g / lengths
        upper = self._g_g * lengths / (-self._x_g).clamp_min(torch.finfo(torch.float32).tiny)
        bounded = (self.amplify * lower).clamp(self.penalty, self.most * self.penalty)
        bounded = torch.where(bounded >= upper, (lower + upper) / 2, bounded)
        return torch.where(away, bounded, self.penalty)
