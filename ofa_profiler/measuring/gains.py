"""How much faster networks are than another one of their session.

Times are steady ones, with the noise of the whole session (`protocol/steady.py`). On a busy machine the gains of single
rounds scatter ten times as much: their medians contain what other programs did in that round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.steady import session_noise, steady_times

#: A smaller gain, as a fraction, is not worth another form. As in the trials of forms.
SMALLEST = 0.01


@dataclass(frozen=True)
class Gain:
    """`factor`: times faster. `half_width`: of its 95% interval, as a fraction."""

    factor: float
    half_width: float

    @property
    def wins(self) -> bool:
        """Whether it is more than the noise and than 1%."""
        return math.log(self.factor) > max(math.log1p(self.half_width), math.log1p(SMALLEST))


def gains_over(base: str, measured: Mapping[str, Measurement]) -> dict[str, Gain]:
    """The gain of each other network over the one with the key `base`. Failed ones have none.

    Empty if the base has failed, or after a single round, which does not tell the noise.
    """
    times = steady_times(measured.values())
    noise = session_noise(times.values())
    if noise is None or base not in times:
        return {}
    half_width = math.expm1(math.sqrt(2) * noise)  # both times have the noise
    return {key: Gain(times[base].ms / time.ms, half_width) for key, time in times.items() if key != base}
