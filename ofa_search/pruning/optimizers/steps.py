"""When units are chosen and removed: the periods of the pruning phase of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_search.pruning.groups import Kept

#: (Group name -> saliency of each of its units, share of the way from the whole network (0) to the budget (1)) -> the
#: units that are kept. It is asked for the share 1.0 once, and that answer is final.
Chooser = Callable[[Mapping[str, NDArray[np.float64]], float], Kept]


#: The usual shares of a training between which units go, and in how many periods. Early, because what is left needs the
#: training: ResNet-20 at half of its latency had 83.3% after four epochs, and 81.9% with 0.05 to 0.55 in ten periods
#: (CIFAR-10, one run each, `benchmarks/pruning.py`).
START, END, PERIODS = 0.02, 0.12, 2


@dataclass(frozen=True)
class PruningSteps:
    """Pruning begins after `start` steps and takes `steps`, in `periods` of equal length.

    At the start of a period it is chosen which units go, from the gradients of the last `samples` steps. Then they are
    decayed to zero, and for the last `samples` steps of the period (at most half of it) the others recover, so that
    the next choice is about a network without what is gone.
    """

    start: int
    steps: int
    periods: int = 1
    samples: int = 20

    def __post_init__(self) -> None:
        if self.start < 0 or self.periods < 1 or self.steps < self.periods or self.samples < 1:
            raise UsageError(f"pruning cannot go by {self}: each period needs a step, and each choice a batch")

    @property
    def end(self) -> int:
        """The number of steps after which pruning is done."""
        return self.start + self.steps

    def begin(self, period: int) -> int:
        """The step with which period number `period` begins; that of the last plus one is the end."""
        return self.start + self.steps * period // self.periods

    def period_at(self, step: int) -> int | None:
        """The period that begins with this step, if one does."""
        near = (step - self.start) * self.periods // self.steps
        return next((p for p in (near, near + 1) if 0 <= p < self.periods and self.begin(p) == step), None)

    def decayed(self, period: int) -> int:
        """The step before which all that was chosen in this period is zero."""
        begin, end = self.begin(period), self.begin(period + 1)
        return end - min(self.samples, (end - begin) // 2)

    def samples_at(self, step: int) -> bool:
        """Whether the gradients of this step count for the next choice."""
        return any(0 <= self.begin(period) - step < self.samples for period in range(self.periods))


def pruning_steps(
    total: int, start: float = START, end: float = END, periods: int = PERIODS, samples: int = 20
) -> PruningSteps:
    """The steps of a training of `total` steps that prunes between these shares of them."""
    first = round(start * total)
    steps = max(1, round(end * total) - first)
    return PruningSteps(first, steps, min(periods, steps), samples)
