"""The noise of times in tables, as relative half widths of 95% intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ofa_profiler.tables.row import OK, Row
from ofa_profiler.tables.stability import HALF_WIDTH
from ofa_profiler.tables.table import LatencyTable

#: Two medians that differ by less are the same, however narrow their intervals are: clocks have a resolution.
LEAST_NOISE = 0.01
_Z95 = 1.96
#: The standard error of a median, divided by that of a mean, for normal samples.
_MEDIAN_TO_MEAN = 1.2533
#: The distance from the 10th to the 90th percentile of a normal distribution, in standard deviations.
_P10_TO_P90 = 2.563
#: From the mean of the absolute values of normal errors to a 95% interval.
_MEAN_ERROR_TO_95 = 1.2533 * _Z95


def row_noise(row: Row) -> float | None:
    """The noise of the time of a row, relative; None if the row does not tell.

    It is `half_width`, else the standard error that follows from p10 and p90, or from std, and the number of visits
    (`rounds`) or of samples.
    """
    if (given := _number(row.extra.get(HALF_WIDTH))) is not None:
        return given
    ms = row.median_ms if row.median_ms is not None else row.mean_ms
    count = _number(row.extra.get("rounds")) or row.samples
    if ms is None or count < 2:
        return None
    if row.p10_ms is not None and row.p90_ms is not None:
        std = (row.p90_ms - row.p10_ms) / _P10_TO_P90
    elif row.std_ms is not None:
        std = row.std_ms
    else:
        return None
    scale = _MEDIAN_TO_MEAN if row.median_ms is not None else 1.0
    return float(_Z95 * scale * std / ms / np.sqrt(count))


def table_noise(table: LatencyTable) -> float:
    """The noise of a sum of ops of a table, relative.

    It follows from `validation.noise`, the mean difference of two measurements of whole networks. Without one, it is
    the limit of the table's verdict on noise or the median noise of its rows. A noisy table has that limit at least.
    """
    validation, stability = table.metadata.get("validation"), table.stability
    said = validation.get("noise") if isinstance(validation, Mapping) else None
    limit = stability.limit if stability is not None and stability.measure == HALF_WIDTH else None
    noise = _MEAN_ERROR_TO_95 * said if isinstance(said, int | float) else limit
    if noise is None:
        known = [each for row in table.rows if row.status == OK and (each := row_noise(row)) is not None]
        return float(np.median(known)) if known else 0.0
    return max(noise, limit) if stability is not None and stability.is_noisy and limit is not None else float(noise)


def whole_noise(table: LatencyTable) -> float:
    """The noise of `whole_ms` of the table of a model: its own half width, else that of a sum of ops."""
    whole = table.metadata.get("whole")
    said = whole.get(HALF_WIDTH) if isinstance(whole, Mapping) else None
    return float(said) if isinstance(said, int | float) and not isinstance(said, bool) else table_noise(table)


def _number(text: str | None) -> float | None:
    """The number in a cell; None if there is none."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if np.isfinite(value) and value >= 0 else None
