"""Parses a line of a journal, or of an agent's output, into a JSON object.

`records/` defines the meaning of the objects.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

#: Longer lines are not records: the longest record of an agent has 1000 samples.
MAX_LINE = 8 << 20


class Garbled(ValueError):
    """The line is not a JSON object: it was cut off, or another program wrote it."""


def parse_line(line: bytes) -> dict[str, Any]:
    """Return the object in a line. Raises `ValueError` unless it is an object with a `type`."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"it holds {name}")

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else refuse(text[:40])

    if len(line) >= MAX_LINE:
        raise ValueError(f"it is longer than {MAX_LINE} bytes")
    try:
        data = json.loads(line.decode("utf-8"), parse_constant=refuse, parse_float=finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise Garbled("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise Garbled(f"it is not JSON ({error.msg})") from None
    if not isinstance(data, dict):
        raise Garbled("it is not an object")
    if not isinstance(data.get("type"), str):
        raise ValueError("it is an object without a type")
    return data
