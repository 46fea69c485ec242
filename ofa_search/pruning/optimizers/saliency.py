"""How much each unit matters: scores of its parameters, comparable over all groups.

With `x` all parameters of a unit (the weights that make it, its bias, its normalisation) and `g` their gradients:

    magnitude          |x|
    average_magnitude  |x| / sqrt(number of parameters)
    cosine             1 - x.g / (|x| |g|): low where the way to zero is the way on which the loss falls
    taylor1            |x.g|: what the loss changes if the unit goes, to the first order
    taylor2            (x.g)^2 / 2: the same to the second order, with the Hessian by Fisher

Each score is divided by its norm over all units, and the saliency is their weighted sum. Scores with gradients are
means over several batches, because the gradients of a single one are noisy.

HESSO adds up all five (`EQUAL`), which is good to rank units by. It is bad for a choice by value per millisecond, which
adds up the values of a group: magnitudes and cosines are about the same for all units, so that it would buy many cheap
ones. `taylor2` is what the loss rises by, and adds up. If half of the MACs of a network for CIFAR-10 go, before any
training, its 88.6% become 88.7% if they are chosen by `taylor2`, and 30% if by all five (`benchmarks/saliency.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from ofa_profiler.errors import UsageError
from ofa_search.pruning.optimizers.units import Units

SCORES = ("magnitude", "average_magnitude", "cosine", "taylor1", "taylor2")
#: The weights for a choice by value per millisecond.
VALUE: Mapping[str, float] = MappingProxyType({"taylor2": 1.0})
#: The weights of HESSO's authors, who remove the units that rank lowest.
EQUAL: Mapping[str, float] = MappingProxyType(dict.fromkeys(SCORES, 0.2))
#: Those with gradients, in the order of the rows of sums.
_SAMPLED = ("cosine", "taylor1", "taylor2")


class Saliency:
    """The scores of `units`, weighted by `weights`. `sample` is called when the gradients of a batch are there."""

    def __init__(self, units: Units, weights: Mapping[str, float]) -> None:
        if unknown := sorted(set(weights) - set(SCORES)):
            raise UsageError(f"unknown score {unknown[0]!r}; choose from {', '.join(SCORES)}")
        if not any(weight > 0 for weight in weights.values()):
            raise UsageError("the saliency needs a score with a weight above 0")
        self.units, self.weights = units, dict(weights)
        self._rows = torch.zeros(len(_SAMPLED), units.total, device=units.device)
        self.samples = 0

    def sample(self, at: Callable[[Tensor], Tensor] = torch.Tensor.detach) -> None:
        """Add the scores of the present gradients. `at` gives the values to be taken for those of a parameter."""
        x_g = self.units.sums(lambda x: None if x.grad is None else at(x).float() * x.grad.float())
        x_x = self.units.sums(lambda x: at(x).float().square())
        g_g = self.units.sums(lambda x: None if x.grad is None else x.grad.float().square())
        lengths = (x_x * g_g).sqrt()
        # Units that are zero already get no score for a direction that they do not have.
        cosine = torch.where(x_x > 0, 1.0 - x_g / lengths.clamp_min(torch.finfo(lengths.dtype).tiny), 0.0)
        self._rows += torch.stack([cosine, x_g.abs(), x_g.square() / 2])
        self.samples += 1

    def scores(self, at: Callable[[Tensor], Tensor] = torch.Tensor.detach) -> dict[str, Tensor]:
        """The mean of what was sampled, and the magnitudes now."""
        magnitude = self.units.sums(lambda x: at(x).float().square()).sqrt()
        sampled = self._rows / max(1, self.samples)
        return {
            "magnitude": magnitude,
            "average_magnitude": magnitude / self.units.sizes.clamp_min(1.0).sqrt(),
            **dict(zip(_SAMPLED, sampled, strict=True)),
        }

    def values(self, at: Callable[[Tensor], Tensor] = torch.Tensor.detach) -> Tensor:
        """The saliency (N,) of each unit."""
        total = torch.zeros_like(self.units.sizes)
        for name, score in self.scores(at).items():
            total += self.weights.get(name, 0.0) * normalised(score)
        return total

    def clear(self) -> None:
        """Forget what was sampled."""
        self._rows.zero_()
        self.samples = 0

    def tensors(self) -> dict[str, Tensor]:
        """What was sampled, for the state of a training."""
        return {"rows": self._rows, "samples": torch.tensor(self.samples)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        self._rows.copy_(tensors["rows"])
        self.samples = int(tensors["samples"])


def normalised(score: Tensor) -> Tensor:
    """Divided by its norm over all units."""
    result: Tensor = score / torch.linalg.vector_norm(score).clamp_min(torch.finfo(score.dtype).tiny)
    return result
