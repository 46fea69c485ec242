"""What a search finds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ofa_profiler.base.units import format_count
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.tables.corrections.intervals import DEFAULT_LEVEL
from ofa_profiler.tables.summary import Facts, facts_html, facts_text


@dataclass(frozen=True, repr=False)
class SearchResult:
    """The best architecture found, and what it costs. Milliseconds and budgets are by table name.

    `predicted_accuracy` is top-1 in [0, 1], None when something else was maximised. `evaluations` counts
    the distinct architectures that were scored; `search_seconds` is the time of the engine alone.
    """

    architecture: Architecture
    predicted_accuracy: float | None
    latency_ms: Mapping[str, float]
    budget_ms: Mapping[str, float]
    macs: int
    params: int
    engine: str
    seed: int
    evaluations: int
    search_seconds: float
    #: The interval of each latency, which holds `interval_level` of such networks; None for a table without intervals.
    latency_interval_ms: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    interval_level: float = DEFAULT_LEVEL
    #: What the objective gives the architecture; the higher, the better.
    score: float = math.nan
    #: No network that keeps the limits has a score above this, if that is known; if `is_optimal`, this one has it.
    bound: float | None = None
    is_optimal: bool = False
    #: The most that a better network could have: points of accuracy, or what else the score counts. None if unknown.
    gap: float | None = None
    #: Why no bound is known.
    no_bound: str | None = None

    @property
    def gap_text(self) -> str:
        """The gap for people, rounded up: `at most 0.57 points`, `none, proven`, `unknown`."""
        if self.gap is None:
            return "unknown"
        if self.is_optimal:
            return "none, proven"
        if self.predicted_accuracy is None:
            return f"at most {format_count(math.ceil(self.gap))}"
        return f"at most {math.ceil(100 * self.gap - 1e-9) / 100:.2f} points"

    def _facts(self) -> Facts:
        accuracy = "none" if self.predicted_accuracy is None else f"{self.predicted_accuracy:.2%}"
        architecture = self.architecture
        summary = "; ".join(architecture.summary.splitlines())
        what = summary if architecture.choices else f"depths {summary}"
        limits = [
            (f"latency on {name}", f"{ms:.4g} of {self.budget_ms[name]:.4g} ms") for name, ms in self.latency_ms.items()
        ]
        return [
            ("space", f"{architecture.space} at {architecture.resolution} pixels, {what}"),
            ("predicted accuracy", accuracy),
            ("gap to the best possible", self.gap_text),
            *limits,
            ("MACs", format_count(self.macs)),
            ("parameters", format_count(self.params)),
            (
                "search",
                f"{self.engine}, seed {self.seed}, {self.evaluations} architectures, {self.search_seconds:.2f} s",
            ),
        ]

    def __repr__(self) -> str:
        return facts_text("SearchResult", self._facts())

    def _repr_html_(self) -> str:
        return facts_html("the network found", self._facts())
