"""From a line of text to a JSON object: lines of a journal, and of what an agent prints.

What an object means is in `records.py`.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

#: Longer lines are no records: the longest that an agent writes has 1000 samples.
MAX_LINE = 8 << 20


class Garbled(ValueError):
    """Not even a JSON object: a line that was cut off, or that another program wrote."""


def parse_line(line: bytes) -> dict[str, Any]:
    """The object in a line. Raises `ValueError` for anything that is not an object with a `type`."""

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
