"""Intervals of predictions, from the errors for networks that a fit has not seen (split conformal prediction).

If `n` earlier networks and a new one are equally likely to have each of the `n + 1` ranks by error, then the error of
the new one is at most the `k`-th smallest of the earlier errors with probability `k / (n + 1)`, whatever the
distribution of the errors (Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ofa_profiler.errors import UsageError

#: The level of an interval if nothing else is asked for.
DEFAULT_LEVEL = 0.95


def checked_level(level: float, name: str = "an interval") -> float:
    """Raise `UsageError` if `level` is not between 0 and 1."""
    if not 0 < level < 1:
        raise UsageError(f"{name} needs a level between 0 and 1, for example 0.95, not {level:g}")
    return level


def interval_factors(errors: Sequence[float], level: float, each: int = 1) -> tuple[float, float] | None:
    """The factors from a prediction to the ends of its interval, which holds at least `level` of the networks.

    `errors` are abs(measured - predicted) / measured of networks that were not used for their prediction, `each` per
    network. Those of one network are alike, so the rank is that among networks. None if these are too few for the level
    (95% needs 19), or if a measurement may be any number of times the prediction.
    """
    networks = len(errors) // each
    rank = math.ceil(round((networks + 1) * level, 9))
    if rank > networks:
        return None
    error = sorted(errors)[rank * each - 1]
    return (1 / (1 + error), 1 / (1 - error)) if error < 1 else None
