"""Latency tables as pandas frames, with the columns and values that `pandas.read_csv` reads from the file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ofa_profiler.base.extras import need
from ofa_profiler.tables.csv_file import csv_text, parse_csv
from ofa_profiler.tables.row import Row

if TYPE_CHECKING:
    import pandas as pd

_NAME, _METADATA = "name", "metadata"


def rows_to_frame(rows: Sequence[Row], name: str, metadata: Mapping[str, Any]) -> pd.DataFrame:
    """A frame with one row per op. Its `attrs` have name and metadata. Raises `UsageError` if pandas is missing."""
    need("pandas", extra="pandas", purpose="to_frame")
    import pandas as pd

    # pandas before version 3 reads numbers exactly only on request.
    exact: dict[str, Any] = {} if int(pd.__version__.partition(".")[0]) >= 3 else {"float_precision": "round_trip"}
    frame: pd.DataFrame = pd.read_csv(io.StringIO(csv_text(rows)), **exact)
    frame.attrs = {_NAME: name, _METADATA: dict(metadata)}
    return frame


def rows_of_frame(
    frame: pd.DataFrame, name: str | None, metadata: Mapping[str, Any] | None
) -> tuple[str, tuple[Row, ...], dict[str, Any]]:
    """Name, rows and metadata of a frame. Raises `InputFileError` if it is not a latency table."""
    name = name if name is not None else str(frame.attrs.get(_NAME, "frame"))
    metadata = metadata if metadata is not None else frame.attrs.get(_METADATA, {})
    # pandas stores integer columns with empty cells as floats. `convert_dtypes` restores integers.
    text = frame.convert_dtypes().to_csv(index=False)
    return name, parse_csv(text, name), dict(metadata)
