"""The progress of several cells as one: visits done and seconds left over all of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from ofa_profiler.base.progress import Progress, Reporter

_NETWORKS = "networks"


class JointProgress:
    """Adds up the progress of cells, which take turns. Each reports to its own `reporter_of`."""

    def __init__(self, cells: Sequence[str], reporter: Reporter) -> None:
        self._reporter = reporter
        self._phases: dict[str, dict[str, Progress]] = {}
        self._first: dict[str, dict[str, Progress]] = {}
        self._cells = tuple(cells)
        self._over: set[str] = set()

    def reporter_of(self, cell: str, label: str) -> Reporter:
        """The reporter for one cell. Its `label` is before the words about it."""

        def show(state: Progress) -> None:
            self._phases.setdefault(state.phase, {})[cell] = state
            if state.left_s is not None:
                self._first.setdefault(state.phase, {}).setdefault(cell, state)
            words = f"{label}: {state.words}" if state.words else label
            self._reporter(replace(self._sum(state.phase), words=words, waiting=state.waiting))

        return show

    def end(self, cell: str) -> None:
        """`cell` is complete, or has failed."""
        self._over.add(cell)

    def _sum(self, phase: str) -> Progress:
        """All cells in one phase. Those that have not begun are expected to take as long as the others, on average."""
        states = self._phases[phase]
        first = self._first.get(phase, {}).values()
        missing = sum(self._is_missing(cell, phase) for cell in self._cells)
        totals = [state.total for state in states.values() if state.total is not None]
        lefts = [state.left_s for name, state in states.items() if state.left_s is not None and name not in self._over]
        left_s = sum(lefts) + missing * statistics.fmean(s.left_s or 0.0 for s in first) if first else None
        total = round(sum(totals) + missing * statistics.fmean(totals)) if totals else None
        return Progress(phase, sum(state.done for state in states.values()), total, left_s)

    def _is_missing(self, cell: str, phase: str) -> bool:
        """Whether a cell has still to begin a phase; it may have skipped it."""
        is_later = not phase.endswith(_NETWORKS) and any(
            cell in states for name, states in self._phases.items() if name.endswith(_NETWORKS)
        )
        return cell not in self._phases[phase] and cell not in self._over and not is_later
