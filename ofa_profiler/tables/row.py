"""One row of a latency table: an op, the times that were measured for it, and the status of the measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.networks.op import Op

#: `status` of a row.
OK, FAILED = "ok", "failed"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured op. Times are milliseconds; None where there is none (see `status`).

    `batch` and `precision` are None and "" where a table does not tell (the published ones).
    """

    description: Op
    batch: int | None
    precision: str
    median_ms: float | None
    mean_ms: float | None
    std_ms: float | None
    p10_ms: float | None
    p90_ms: float | None
    samples: int
    status: str
    #: Why the op failed, on one line.
    error: str = ""
    #: Set when the times count only inside networks of this resolution: the published tables measured
    #: an op that several resolutions share once for each.
    resolution: int | None = None
    #: Columns of the CSV that are none of ours, kept as they are.
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)
    #: The line of the file that it came from, for messages.
    line: int | None = field(default=None, compare=False)

    @staticmethod
    def from_op(op: Op, *, batch: int, precision: str, samples_ms: Sequence[float] | NDArray[np.float64]) -> Row:
        """A row with the statistics of all `samples_ms`, which must be above zero and finite."""
        samples = np.asarray(samples_ms, dtype=np.float64)
        if samples.ndim != 1 or not samples.size or not np.isfinite(samples).all() or samples.min() <= 0:
            raise ValueError(f"{op.key}: samples must be at least one time above zero, all finite")
        p10, median, p90 = (float(p) for p in np.percentile(samples, (10, 50, 90)))
        return Row(
            description=op,
            batch=batch,
            precision=precision,
            median_ms=median,
            mean_ms=float(samples.mean()),
            std_ms=float(samples.std()),
            p10_ms=p10,
            p90_ms=p90,
            samples=samples.size,
            status=OK,
        )

    @staticmethod
    def failed(op: Op, *, batch: int, precision: str, error: str) -> Row:
        """A row that says that the op could not be measured, and why."""
        return Row(
            description=op,
            batch=batch,
            precision=precision,
            median_ms=None,
            mean_ms=None,
            std_ms=None,
            p10_ms=None,
            p90_ms=None,
            samples=0,
            status=FAILED,
            error=_one_line(error),
        )

    @property
    def op(self) -> str:
        """The key of its op."""
        return self.description.key

    def to_op(self) -> Op:
        """Its op."""
        return self.description

    @property
    def relative_std(self) -> float:
        """Standard deviation over mean, 0 where one of them is not known."""
        return self.std_ms / self.mean_ms if self.std_ms and self.mean_ms else 0.0


def _one_line(text: str) -> str:
    """What a device said, fit for a cell: on one line, printable, not endless."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:500]
