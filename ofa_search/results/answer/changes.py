"""What each change of one choice would gain or cost, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ofa_profiler.base.units import format_count
from ofa_search.results.found import Found
from ofa_search.searching.around import Change

if TYPE_CHECKING:
    from rich.table import Table

UNKNOWN, UNUSABLE = "unknown", "cannot run"


def score_name(found: Found) -> str:
    """What `score_words` counts."""
    return "accuracy" if found.result.predicted_accuracy is not None else found.objective.name


def score_words(change: Change) -> str:
    """The change of what is maximised: `+0.012 points` of accuracy, `-1.2M` MACs."""
    if change.accuracy_change is not None:
        return f"{100 * change.accuracy_change:+.3f} points"
    if change.score_change is None:
        return UNKNOWN
    return signed_count(change.score_change)


def signed_count(value: float) -> str:
    """`+1.2M`; numbers below 10 in full precision."""
    sign = "-" if value < 0 else "+"
    return f"{sign}{format_count(round(abs(value)))}" if abs(value) >= 10 else f"{value:+.4g}"


def ms_words(milliseconds: float) -> str:
    """`+0.123 ms`."""
    return f"{milliseconds:+.3g} ms" if math.isfinite(milliseconds) else UNUSABLE


def limits_words(change: Change) -> str:
    """Whether the limits are kept."""
    return "kept" if change.network.keeps_limits else "not kept"


def value_words(change: Change) -> str:
    """`3 → 5`."""
    return f"{change.before} → {change.after}"


def changes_table(found: Found) -> Table:
    """A row per change, the best first. With several tables, a cell has a line for each, in their order."""
    from rich import box
    from rich.table import Table

    where = f"{next(iter(found.result.budget_ms.values())):g} ms"
    title = f"{where}: every change of one choice"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("choice", overflow="fold")
    for name in ("change", score_name(found), "latency", "limits"):
        table.add_column(name, justify="right", overflow="fold")
    for change in found.changes or ():
        latency = "\n".join(map(ms_words, change.latency_change_ms.values()))
        table.add_row(change.choice, value_words(change), score_words(change), latency, limits_words(change))
    return table


def saved_per_loss(change: Change, table: str) -> float:
    """How many milliseconds a change saves for what it loses; infinite if it loses nothing, 0 if it saves nothing."""
    saved = -change.latency_change_ms[table]
    if saved <= 0:
        return 0.0
    loss = -(change.score_change or 0.0)
    return saved / loss if loss > 0 else math.inf
