"""From saliencies to the units that are kept: what the training asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ofa_search.pruning.groups import Counts, Kept
from ofa_search.pruning.latency.budget import Decision, check_attainable, keep_budget
from ofa_search.pruning.latency.choice import kept_units
from ofa_search.pruning.latency.model import LatencyModel, Saliencies

#: (group -> saliency of each unit, share of the way from the whole network to the budget) -> the units that are kept.
Chooser = Callable[[Mapping[str, NDArray[np.float64]], float], Kept]


@dataclass(eq=False)
class LatencyChooser:
    """A `Chooser` for a budget in milliseconds. The share 1 is asked once: it is measured, and the answer is final."""

    model: LatencyModel
    budget_ms: float
    #: The answer for the share 1.
    decision: Decision | None = field(default=None, init=False)

    def __call__(self, saliencies: Saliencies, share: float) -> Kept:
        """The units to keep. Raises `InfeasibleError`, `OverBudgetError` and `DeviceError`."""
        if share >= 1:
            self.decision = keep_budget(self.model, saliencies, self.budget_ms)
            return kept_of(saliencies, self.decision.counts)
        whole_ms = self.model.attainable_ms[1]
        budget_ms = whole_ms - share * max(whole_ms - self.budget_ms, 0.0)
        return kept_of(saliencies, self.model.space.counts(self.model.choose(saliencies, budget_ms).genome))


@dataclass(eq=False)
class MacsChooser:
    """A `Chooser` for a budget in multiply-accumulates. Nothing is measured."""

    model: LatencyModel
    budget_macs: float

    def __call__(self, saliencies: Saliencies, share: float) -> Kept:
        """The units to keep. Raises `InfeasibleError`."""
        whole = self.model.grid.macs.maximum()[0]
        budget = whole - min(share, 1.0) * max(whole - self.budget_macs, 0.0)
        found = self.model.choose_by_macs(saliencies, budget)
        return kept_of(saliencies, self.model.space.counts(found.genome))


def chooser(model: LatencyModel, budget_ms: float) -> LatencyChooser:
    """The chooser for a budget. Raises `InfeasibleError` with the attainable range before any training."""
    check_attainable(model, budget_ms)
    return LatencyChooser(model, budget_ms)


def kept_of(saliencies: Saliencies, counts: Counts) -> dict[str, NDArray[np.int64]]:
    """The most salient units of each group."""
    return {group: kept_units(saliencies[group], counts[group]) for group in saliencies if group in counts}
