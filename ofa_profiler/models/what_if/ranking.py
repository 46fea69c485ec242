"""What changes save, from the measured times of the original and the edited networks of one session.

Times are the steady ones (`protocol/steady.py`), which other programs on the device move least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ofa_profiler.models.what_if.variants import Variant
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.steady import session_noise, steady_times


@dataclass(frozen=True)
class Saving:
    """What a change saves: milliseconds of the network, below 0 if it costs time.

    `noise_ms` is half of the 95% confidence interval of `saved_ms`, from the noise of the whole session.
    """

    change: str
    places: tuple[str, ...]
    before_ms: float
    after_ms: float
    noise_ms: float

    @property
    def saved_ms(self) -> float:
        """How much faster the network is."""
        return self.before_ms - self.after_ms

    @property
    def is_clear(self) -> bool:
        """Whether it saves more than the noise."""
        return self.saved_ms > self.noise_ms

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types, as in the JSON of a table."""
        return {
            "change": self.change,
            "places": list(self.places),
            "saved_ms": self.saved_ms,
            "noise_ms": self.noise_ms,
            "before_ms": self.before_ms,
            "after_ms": self.after_ms,
        }

    def __str__(self) -> str:
        share = self.saved_ms / self.before_ms
        doubt = "" if self.is_clear else "; no more than the noise" if self.saved_ms > 0 else "; it does not save time"
        return f"{self.change}: {self.saved_ms:.3g} ms ± {self.noise_ms:.2g} ms, {share:.1%} of the network{doubt}"


def savings(original: Measurement, variants: Sequence[Variant], found: Mapping[str, Measurement]) -> tuple[Saving, ...]:
    """What each change saves, the most first. `found` are the measurements by key. Failed networks are left out."""
    times = steady_times([original, *found.values()])
    before = times.get(original.key)
    if before is None:
        return ()
    noise = session_noise(times.values())
    if noise is None:
        noise = _noise_of_samples([original, *found.values()])
    measured = [(variant, times[variant.key].ms) for variant in variants if variant.key in times]
    all_savings = [
        Saving(variant.label, variant.places, before.ms, ms, noise * float(np.hypot(before.ms, ms)))
        for variant, ms in measured
    ]
    return tuple(sorted(all_savings, key=lambda saving: -saving.saved_ms))


def _noise_of_samples(measurements: Sequence[Measurement]) -> float:
    """The largest noise by the samples of a network, for sessions of one round."""
    return max(m.half_width if m.half_width is not None else m.std_ms / m.median_ms for m in measurements if m.ok)
