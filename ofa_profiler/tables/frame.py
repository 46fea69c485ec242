"""Latency tables as pandas frames: the same columns and values as `pandas.read_csv` gives for the file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ofa_profiler.errors import UsageError
from ofa_profiler.tables.csv_file import csv_text, parse_csv
from ofa_profiler.tables.row import Row

if TYPE_CHECKING:
    import pandas as pd

_NAME, _METADATA = "name", "metadata"


def rows_to_frame(rows: Sequence[Row], name: str, metadata: Mapping[str, Any]) -> pd.DataFrame:
    """A frame with a row per op; its `attrs` hold name and metadata. Raises `UsageError` where pandas is missing."""
    try:
        import pandas as pd
    except ImportError:
        raise UsageError("frames need pandas: pip install 'ofa-profiler[pandas]'") from None
    # Before pandas 3, numbers are read exactly only on request.
    exact: dict[str, Any] = {} if int(pd.__version__.partition(".")[0]) >= 3 else {"float_precision": "round_trip"}
    frame: pd.DataFrame = pd.read_csv(io.StringIO(csv_text(rows)), **exact)
    frame.attrs = {_NAME: name, _METADATA: dict(metadata)}
    return frame


def rows_of_frame(frame: pd.DataFrame) -> tuple[str, tuple[Row, ...], dict[str, Any]]:
    """Name, rows and metadata of a table. Raises `InputFileError` for a frame that is no latency table."""
    name = str(frame.attrs.get(_NAME, "frame"))
    # A column of whole numbers with gaps is one of floats in pandas, unless its type is chosen anew.
    text = frame.convert_dtypes().to_csv(index=False)
    return name, parse_csv(text, name), dict(frame.attrs.get(_METADATA, {}))
