"""Which rung serves the next frame: decided from the latencies of the last frames.

The slowdown is a running estimate of measured / expected latency: what the wanted share of the last frames did not
exceed. So a single slow frame changes nothing, some in a row lead down at once, and all of the last frames must have
been fast before it goes up again. The load can hit a slow network harder than a fast one. Then a rung is tried again
and again in vain, so the wait before the next attempt doubles each time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ofa_profiler.errors import UsageError

#: The longest wait after attempts in vain, in windows.
_LONGEST_WAIT = 8


@dataclass(frozen=True)
class Switching:
    """How to switch.

    `share` of the frames should keep the target; `window`: so many frames estimate the slowdown, and so many are
    served at least before it goes up; `margin`: it goes up if the target is kept with so much room.
    """

    share: float = 0.9
    window: int = 20
    margin: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"the share of frames must be above 0 and at most 1, not {self.share}")
        if self.window < 1:
            raise UsageError(f"the window must have at least one frame, not {self.window}")
        if not 0 <= self.margin < 1:
            raise UsageError(f"the margin must be from 0 to below 1, not {self.margin}")


class Switch:
    """The number of the rung for the next frame is `rung`; `observe` tells it how long a frame took."""

    def __init__(self, expected_ms: Sequence[float], target_ms: float, switching: Switching | None = None) -> None:
        if not (math.isfinite(target_ms) and target_ms > 0):
            raise UsageError(f"the latency target must be above zero and finite, not {target_ms} ms")
        self._expected_ms = tuple(expected_ms)
        self.target_ms = target_ms
        self._how = switching or Switching()
        # At the start, latencies count as expected, so that the first frames are no reason to switch.
        self._ratios = deque([1.0] * self._how.window, maxlen=self._how.window)
        self._wait = self._how.window
        self._served = 0
        self._went_up = False
        self.rung = self._best(target_ms)

    @property
    def slowdown(self) -> float:
        """Measured / expected latency that the wanted share of the last frames did not exceed."""
        return sorted(self._ratios)[math.ceil(self._how.share * len(self._ratios) - 1e-9) - 1]

    def observe(self, measured_ms: float) -> int:
        """Learn the latency of a frame that `rung` has served; gives the rung for the next one."""
        self._ratios.append(measured_ms / self._expected_ms[self.rung])
        self._served += 1
        if self._went_up and self._served > self._how.window:  # the attempt was not in vain
            self._wait, self._went_up = self._how.window, False
        lower = self._best(self.target_ms)
        upper = self._best(self.target_ms * (1 - self._how.margin))
        if lower < self.rung:
            if self._went_up:
                self._wait = min(2 * self._wait, _LONGEST_WAIT * self._how.window)
            self._go(lower, up=False)
        elif upper > self.rung and self._served >= self._wait:
            self._go(upper, up=True)
        return self.rung

    def _go(self, rung: int, *, up: bool) -> None:
        self.rung, self._went_up, self._served = rung, up, 0

    def _best(self, limit_ms: float) -> int:
        """The best rung that keeps a limit at the present slowdown; the fastest one if none does."""
        slowdown = self.slowdown
        kept = [number for number, ms in enumerate(self._expected_ms) if ms * slowdown <= limit_ms]
        return max(kept) if kept else min(range(len(self._expected_ms)), key=self._expected_ms.__getitem__)
