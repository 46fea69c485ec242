"""One row of a latency table: an op, its measured times, and the status of the measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.networks.op import Op
from ofa_profiler.tables.cells import MAX_MS

#: `status` of a row: measured, failed, or inferred from the table of a similar device (`transfer/`).
OK, FAILED, INFERRED = "ok", "failed", "inferred"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One op. Times are in milliseconds; None if unknown or if the op failed (`status`).

    The times of an inferred op are its most likely one, and an interval that holds the true one with 80% (p10, p90).

    Published tables do not contain batch and precision. Then `batch` is None and `precision` is "".
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
    #: If set, the times are valid only in networks of this resolution. Published tables contain an op that several
    #: resolutions share once per resolution.
    resolution: int | None = None
    #: Unknown columns of the CSV, kept unchanged.
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)
    #: The line in the file, for messages.
    line: int | None = field(default=None, compare=False)

    @staticmethod
    def from_op(op: Op, *, batch: int, precision: str, samples_ms: Sequence[float] | NDArray[np.float64]) -> Row:
        """A row with the statistics of all `samples_ms`. Raises `ValueError` unless they are finite and above zero."""
        samples = np.asarray(samples_ms, dtype=np.float64)
        if samples.ndim != 1 or not samples.size or not np.isfinite(samples).all() or samples.min() <= 0:
            raise ValueError(f"{op.key}: at least one sample is needed, and all must be finite and above zero")
        if samples.max() > MAX_MS:
            raise ValueError(f"{op.key}: {samples.max():g} ms is not a time of an op; it must be at most {MAX_MS:g} ms")
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
        """A row for an op that could not be measured. `error` is the reason."""
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

    @staticmethod
    def inferred(op: Op, *, batch: int, precision: str, ms: tuple[float, float, float]) -> Row:
        """A row for an op that was not measured: its time, and the ends of the interval."""
        median, low, high = ms
        return Row(
            description=op,
            batch=batch,
            precision=precision,
            median_ms=median,
            mean_ms=None,
            std_ms=None,
            p10_ms=low,
            p90_ms=high,
            samples=0,
            status=INFERRED,
        )

    @property
    def op(self) -> str:
        """The key of the op."""
        return self.description.key

    def to_op(self) -> Op:
        """The op."""
        return self.description

    @property
    def relative_std(self) -> float:
        """Standard deviation divided by mean; 0 if one of them is unknown."""
        return self.std_ms / self.mean_ms if self.std_ms and self.mean_ms else 0.0


def _one_line(text: str) -> str:
    """A message of a device, for a cell: one line, printable, at most 500 characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:500]
