"""How much faster one model is than another, measured in the same rounds."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from ofa_profiler.protocol.measurement import Measurement

#: A smaller gain, as a fraction, is not worth another form. As in the trials of forms.
SMALLEST = 0.01
#: 97.5% quantiles of Student's t distribution for 1, 2, ... degrees of freedom, as in the agent.
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def t_975(rounds: int) -> float:
    """The quantile for the mean of so many rounds, at least 2."""
    return _T_975[min(max(rounds, 2) - 1, len(_T_975)) - 1]


@dataclass(frozen=True)
class Gain:
    """`factor`: times faster, the geometric mean over the rounds. `half_width`: of its 95% interval, as a fraction."""

    factor: float
    half_width: float

    @property
    def wins(self) -> bool:
        """Whether it is more than the noise and than 1%."""
        return math.log(self.factor) > max(math.log1p(self.half_width), math.log1p(SMALLEST))


def gain(before: Measurement, after: Measurement) -> Gain | None:
    """The gain by the medians of the rounds that both have; None for fewer than two, or if one has failed."""
    pairs = zip(before.rounds_ms, after.rounds_ms, strict=False)
    logs = [math.log(statistics.median(one) / statistics.median(other)) for one, other in pairs]
    if len(logs) < 2 or not (before.ok and after.ok):
        return None
    half_width = t_975(len(logs)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Gain(math.exp(statistics.mean(logs)), math.expm1(half_width))
