"""The search by measurement: the best network that keeps its budget when it is measured.

A search looks for networks that the table underestimates, and a device can be slower or faster than when the table was
measured. So the best networks at and just below the budget, the finalists, are measured interleaved. The predictions
are multiplied by the median of measured / predicted latency near the budget, and the search is repeated, until it finds
nothing better than the best network that was measured to keep the budget. It must keep it by a margin, because the
fastest of several measurements is fast by luck, too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ofa_profiler.errors import InfeasibleError
from ofa_profiler.networks.architecture import Architecture
from ofa_search.results.found import Found

#: The finalists are the best networks for these parts of the budget; a front has fewer of them per budget.
_AIMS, _AIMS_OF_FRONT = (1.0, 0.99, 0.98, 0.96), (1.0, 0.98)
#: The fastest network ends the rounds of a budget that no finalist has kept.
_ROUNDS = 4
#: The margin in units of the noise, the mean difference between the halves of a session. Two measurements of a network
#: rarely differ by more: for normal errors, the second is slower by this margin in 5% of the cases.
_MARGIN = 1.5
#: The next round aims lower by this factor, while no network keeps the budget.
_LOWER = 0.97

#: (network, budget of its first table in ms) -> the best network for that budget, with the budgets of the first one.
#: Raises `InfeasibleError` if there is none.
Search = Callable[[Found, float], Found]
#: Networks -> the same with their measured latency.
Measure = Callable[[Sequence[Found]], list[Found]]


@dataclass(frozen=True)
class Finals:
    """The best network for each budget, and how many measurements decided."""

    found: list[Found]
    networks: int
    rounds: int


@dataclass
class _Budget:
    """What is known about one budget. `wanted` is the network that the predictions choose."""

    wanted: Found
    name: str
    measured: dict[Architecture, Found] = field(default_factory=dict)
    #: The factor of the next aim, for a budget that no network has kept.
    caution: float = 1.0
    evaluations: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.ms = self.wanted.result.budget_ms[self.name]
        self._count(self.wanted)

    @property
    def scale(self) -> float:
        """Measured / predicted latency near the budget."""
        ratios = [self._measured_ms(found) / found.result.latency_ms[self.name] for found in self.measured.values()]
        return statistics.median(ratios) if ratios else 1.0

    @property
    def best(self) -> Found | None:
        """The best network that keeps the budget by the margin."""
        return self._best(_MARGIN)

    def _best(self, margin: float) -> Found | None:
        kept = [f for f in self.measured.values() if self._measured_ms(f) * (1 + margin * f.noise) <= self.ms]
        return max(kept, key=lambda found: found.result.score, default=None)

    def finalists(self, search: Search, aims: Sequence[float]) -> list[Found]:
        """Networks that were not measured and may be better than the best one; none if it is the best."""
        best, found = self.best, {}
        if best is None and self.measured:
            self.caution *= _LOWER
        aimed_ms = self.ms / self.scale * self.caution
        for aim in aims:
            network = self.wanted if not self.measured and aim == 1 else self._searched(search, aim * aimed_ms)
            if network is None or network.result.architecture in self.measured:
                continue
            if best is None or network.result.score > best.result.score:
                found[network.result.architecture] = network
        return list(found.values())

    def fastest(self, search: Search) -> list[Found]:
        """The fastest network, if it was not measured."""
        network = self._searched(search, self.ms * 1e-9)
        return [] if network is None or network.result.architecture in self.measured else [network]

    def _searched(self, search: Search, ms: float) -> Found | None:
        """The best network for a budget; for one below the attainable, the fastest network."""
        try:
            return self._count(search(self.wanted, ms))
        except InfeasibleError as error:
            if error.attainable is None or error.attainable[0] <= ms:
                return None
            lowest_ms = error.attainable[0]
        try:
            return self._count(search(self.wanted, lowest_ms * (1 + 1e-9)))
        except InfeasibleError:  # other limits exclude it
            return None

    def _count(self, network: Found) -> Found:
        self.evaluations += network.result.evaluations
        self.seconds += network.result.search_seconds
        return network

    def learn(self, measured: Sequence[Found]) -> None:
        """Keep measurements; the latest one of a network counts."""
        self.measured.update({found.result.architecture: found for found in measured})

    def answer(self) -> Found:
        """The best network that keeps the budget, if possible by the margin; the closest one if there is none."""
        found = self.best or self._best(0.0) or min(self.measured.values(), key=self._measured_ms)
        total = replace(found.result, evaluations=self.evaluations, search_seconds=self.seconds)
        return replace(found, result=total, finalists=tuple(self.measured.values()))

    def _measured_ms(self, found: Found) -> float:
        return (found.measured_latency_ms or {})[self.name]


def decide_by_measuring(found: Sequence[Found], name: str, search: Search, measure: Measure) -> Finals:
    """The best networks that keep the budgets of `found` on the table `name` when measured.

    A budget that no measured network keeps, not even the fastest one, has the fastest of the measured networks.
    """
    budgets = [_Budget(network, name) for network in found]
    aims = _AIMS if len(found) == 1 else _AIMS_OF_FRONT
    networks = rounds = 0
    for number in range(_ROUNDS + 1):
        finals: list[list[Found]] = []
        for budget in budgets:
            if number < _ROUNDS:
                finals.append(budget.finalists(search, aims))
            else:
                finals.append([] if budget.best is not None else budget.fastest(search))
        if not any(finals):
            if all(budget.best is not None for budget in budgets):
                break
            continue
        # The best ones are measured again, so that all that is compared was measured in one session.
        tried = [
            [*final, *([budget.best] if budget.best is not None and final else [])]
            for budget, final in zip(budgets, finals, strict=True)
        ]
        measured = iter(measure([network for networks_of in tried for network in networks_of]))
        for budget, networks_of in zip(budgets, tried, strict=True):
            budget.learn([next(measured) for _ in networks_of])
        networks += sum(map(len, finals))
        rounds += 1
    return Finals([budget.answer() for budget in budgets], networks, rounds)
