"""A row of a table from what was measured of an op."""

from __future__ import annotations

from dataclasses import replace

from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.target import Target
from ofa_profiler.tables.row import Row


def row_of(op: Op, measured: Measurement, target: Target) -> Row:
    """Return the row of an op that was measured, or that failed."""
    if not measured.ok:
        return Row.failed(op, batch=target.batch, precision=target.precision, error=measured.error or "")
    row = Row.from_op(op, batch=target.batch, precision=target.precision, samples_ms=measured.samples_ms)
    width = "" if measured.half_width is None else f"{measured.half_width:.4g}"
    return replace(row, extra={"rounds": str(len(measured.rounds_ms)), "half_width": width})
