"""A choice that keeps its budget when it is measured.

A choice looks for networks that the model underestimates, and a device can be slower or faster than when its points
were measured. So the choices at and just below the budget are measured in turns, as whole networks. What was measured
tells which prediction a network has that takes the budget, and it is chosen again, until nothing better is found than
the best network that was measured to keep the budget. It must keep it by a margin, because the fastest of several
measurements is fast by luck, too. The latency depends on the numbers of units alone, so all of this happens before the
training ends, with any weights.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from ofa_profiler.errors import InfeasibleError, OverBudgetError
from ofa_search.pruning.groups import Counts
from ofa_search.pruning.latency.choice import MILLISECONDS
from ofa_search.pruning.latency.model import LatencyModel, Saliencies

#: Choices are made for these parts of the budget.
_AIMS = (1.0, 0.98, 0.96)
_MOST_ROUNDS = 4
#: The margin in units of the noise, the mean difference between the halves of a session: a second measurement of a
#: network is slower by more in about 5% of the cases.
_MARGIN = 1.5
#: The margin at least, as a part of the latency: what is measured here has made-up weights (trained ones took up to
#: 1.8% longer), and devices drift from one session to the next.
_LEAST_MARGIN = 0.02
#: The next round aims lower by this factor, while no network keeps the budget.
_LOWER = 0.97


@dataclass(frozen=True)
class Candidate:
    """A network that was measured: the units of all groups, their value, and milliseconds."""

    counts: Counts
    value: float
    predicted_ms: float
    measured_ms: float
    noise: float

    @property
    def slow_ms(self) -> float:
        """The time that another measurement hardly exceeds: this must keep the budget."""
        return self.measured_ms * (1 + max(_LEAST_MARGIN, _MARGIN * self.noise))


@dataclass(frozen=True)
class Decision:
    """The network that keeps the budget, and how it was found.

    `predicted_ms` is that of the table; `measured_ms` is None if there is no device. `gap` is how much more value
    another network could have at most, by the model, as a fraction.
    """

    counts: Counts
    budget_ms: float
    predicted_ms: float
    measured_ms: float | None
    noise: float | None
    value: float
    gap: float
    rounds: int
    networks: int


@dataclass
class _Trials:
    model: LatencyModel
    saliencies: Saliencies
    budget_ms: float
    measured: dict[tuple[tuple[str, int], ...], Candidate] = field(default_factory=dict)
    caution: float = 1.0
    gap: float = 0.0

    @property
    def aimed_ms(self) -> float:
        """The prediction of a network that takes just the budget.

        Between the slowest network that keeps the budget and the next one that does not, it is interpolated: the ratio
        of measured and predicted can differ much from one to the other.
        """
        best = max(self._kept, key=lambda each: each.measured_ms, default=None)
        failed = [each for each in self.measured.values() if each not in self._kept]
        above = [each for each in failed if best is None or each.predicted_ms > best.predicted_ms]
        worse = min(above, key=lambda each: each.predicted_ms, default=None)
        if best is not None and worse is not None:
            part = math.log(self.budget_ms / best.slow_ms) / math.log(worse.slow_ms / best.slow_ms)
            return float(best.predicted_ms * (worse.predicted_ms / best.predicted_ms) ** part)
        ratios = [each.slow_ms / each.predicted_ms for each in self._kept or self.measured.values()]
        return self.budget_ms / (statistics.median(ratios) if ratios else 1.0)

    @property
    def _kept(self) -> list[Candidate]:
        return [each for each in self.measured.values() if each.slow_ms <= self.budget_ms]

    @property
    def best(self) -> Candidate | None:
        """The most valuable network that keeps the budget."""
        return max(self._kept, key=lambda each: each.value, default=None)

    def chosen(self) -> list[tuple[Counts, float]]:
        """Networks, with their values, that were not measured and may be better than the best one.

        Raises `InfeasibleError` if the first choice is impossible.
        """
        best, found = self.best, {}
        self.caution = 1.0 if best is not None or not self.measured else self.caution * _LOWER
        aimed_ms = self.aimed_ms * self.caution
        lowest_ms, _ = self.model.attainable_ms
        for aim in _AIMS:
            choice = self._choice(max(aim * aimed_ms, lowest_ms) if self.measured or aim < 1 else aimed_ms)
            if choice is None:
                continue
            counts, value, gap = choice
            if aim == 1.0:
                self.gap = gap
            key = tuple(sorted(counts.items()))
            if key not in self.measured and (best is None or value > best.value):
                found[key] = (counts, value)
        return list(found.values())

    def _choice(self, ms: float) -> tuple[Counts, float, float] | None:
        try:
            found = self.model.choose(self.saliencies, ms, exactly=True)
        except InfeasibleError:
            if self.model.attainable_ms[0] > self.budget_ms and not self.measured:
                raise
            return None  # the points that were just measured are slower
        return self.model.space.counts(found.genome), found.value, found.gap

    def measure(self, several: Sequence[tuple[Counts, float]]) -> None:
        """Measure networks, and the best one again, so that all that is compared is of one session."""
        best = self.best
        all_of_them = [*several, *([(best.counts, best.value)] if best is not None else [])]
        times, noise = self.model.measure_networks([counts for counts, _ in all_of_them])
        for (counts, value), ms in zip(all_of_them, times, strict=True):
            key = tuple(sorted(counts.items()))
            self.measured[key] = Candidate(counts, value, self.model.predicted_ms(counts), ms, noise)


def keep_budget(model: LatencyModel, saliencies: Saliencies, budget_ms: float) -> Decision:
    """The most valuable network that keeps the budget when measured; without a device, by the table.

    Raises `InfeasibleError` if the table says that no network does, `OverBudgetError` if none that was measured does.
    """
    if model.measuring is None:
        choice = model.choose(saliencies, budget_ms)
        return Decision(
            model.space.counts(choice.genome), budget_ms, choice.cost, None, None, choice.value, choice.gap, 0, 0
        )
    trials, rounds, networks = _Trials(model, saliencies, budget_ms), 0, 0
    while rounds < _MOST_ROUNDS and (found := trials.chosen()):
        trials.measure(found)
        rounds, networks = rounds + 1, networks + len(found)
    best = trials.best
    if best is None:
        fastest = _fastest(trials)
        raise OverBudgetError(
            f"no pruned network keeps {MILLISECONDS.spelled(budget_ms)} when measured: {networks} were, and the "
            f"fastest takes {MILLISECONDS.spelled(fastest.measured_ms, up=True)}; give a larger budget"
        )
    return Decision(
        best.counts,
        budget_ms,
        best.predicted_ms,
        best.measured_ms,
        best.noise,
        best.value,
        trials.gap,
        rounds,
        networks,
    )


def _fastest(trials: _Trials) -> Candidate:
    return min(trials.measured.values(), key=lambda each: each.measured_ms)


def check_attainable(model: LatencyModel, budget_ms: float) -> None:
    """Raise `InfeasibleError` with the attainable range if no network keeps the budget."""
    lowest_ms, highest_ms = model.attainable_ms
    if lowest_ms > budget_ms:
        low, high = MILLISECONDS.spelled(lowest_ms, up=True), MILLISECONDS.spelled(highest_ms)
        raise InfeasibleError(
            f"no pruned network meets {MILLISECONDS.spelled(budget_ms)}; attainable: {low} to {high}",
            (lowest_ms, highest_ms),
        )
