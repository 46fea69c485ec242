"""The picture of a verification: every network's predicted latency against its measured one.

matplotlib is optional and imported only when a plot is drawn.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.base.files import replacing
from ofa_profiler.errors import UsageError

if TYPE_CHECKING:
    from ofa_profiler.verification.result import Verification

NOT_INSTALLED = "a plot needs matplotlib, which is not installed: pip install 'ofa-profiler[plot]'"


#: What matplotlib's Agg, SVG and PDF backends write.
_ENDINGS = ("pdf", "png", "svg")


def can_plot() -> bool:
    """Whether matplotlib is installed; found out without importing it."""
    return find_spec("matplotlib") is not None


def check_plot_path(path: Path) -> None:
    """Raise `UsageError` unless a plot can be drawn here, in the format that the name of `path` ends in."""
    if _format(path) not in _ENDINGS:
        raise UsageError(f"cannot plot to {path}: the name must end in one of .{', .'.join(_ENDINGS)}")
    if not can_plot():
        raise UsageError(NOT_INSTALLED)


def _format(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def plot_verification(
    verification: Verification, path: Path, *, title: str = "", plain_ms: NDArray[np.float64] | None = None
) -> None:
    """Write a scatter plot, milliseconds against milliseconds. Raises `UsageError` if that is impossible.

    `plain_ms` are the plain sums of the usable networks, where the table has another latency model.
    """
    check_plot_path(path)
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(6.4, 6.0), dpi=150, layout="constrained")
    usable = verification.usable
    predicted, measured = verification.predicted_ms, verification.measured_ms
    resolutions = np.array([subnet.architecture.resolution for subnet in usable])
    axes = figure.add_subplot()
    limit = 1.06 * max(np.max(some) for some in (predicted, measured, plain_ms) if some is not None)
    line = np.array([0.0, limit])
    axes.fill_between(line, 0.97 * line, 1.03 * line, color="0.88", label="within 3%", linewidth=0)
    axes.plot(line, line, color="0.45", linewidth=1, label="predicted = measured")
    if plain_ms is not None:
        axes.scatter(measured, plain_ms, s=14, facecolors="none", edgecolors="0.6", label="plain sum of the ops")
    colors = {resolution: f"C{i}" for i, resolution in enumerate(np.unique(resolutions))}
    for resolution, color in colors.items():
        chosen = resolutions == resolution
        axes.scatter(measured[chosen], predicted[chosen], s=22, color=color, label=f"{resolution} px", zorder=3)
    axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
    axes.set_xlabel("measured latency of the whole network (ms)")
    axes.set_ylabel("predicted latency (ms)")
    axes.set_title(title or "predicted against measured", fontsize=11, parse_math=False)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    axes.text(0.98, 0.03, _summary(verification), transform=axes.transAxes, ha="right", va="bottom", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=_format(path))


def direction(verification: Verification) -> str:
    """Say whether the predictions are too low or too high on average."""
    off = verification.ratio - 1
    return f"predictions {abs(off):.1%} too {'low' if off < 0 else 'high'}"


def _summary(verification: Verification) -> str:
    return (
        f"{len(verification.usable)} networks\n"
        f"mean error {verification.mape:.1%} ({direction(verification)}), noise {verification.spell('noise')}\n"
        f"within 3%: {verification.within_3pct:.0%}, Spearman {verification.spell('spearman', '.3f')}"
    )
