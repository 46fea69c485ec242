"""What changes save, from the measured times of the original and the edited networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ofa_profiler.models.what_if.variants import Variant
from ofa_profiler.protocol.measurement import Measurement


@dataclass(frozen=True)
class Saving:
    """What a change saves: milliseconds of the network, below 0 if it costs time.

    `noise_ms` is half of the 95% confidence interval of `saved_ms`, from the half widths of both medians.
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
    if not original.ok:
        return ()
    measured = [(variant, found[variant.key]) for variant in variants if variant.key in found]
    all_savings = [
        Saving(
            variant.label,
            variant.places,
            original.median_ms,
            after.median_ms,
            float(np.hypot(_half_ms(original), _half_ms(after))),
        )
        for variant, after in measured
        if after.ok
    ]
    return tuple(sorted(all_savings, key=lambda saving: -saving.saved_ms))


def _half_ms(measurement: Measurement) -> float:
    """Half of the interval of the median. Without the agent's, from the medians of the visits."""
    if measurement.half_width is not None:
        return measurement.half_width * measurement.median_ms
    medians = [float(np.median(samples)) for samples in measurement.rounds_ms]
    return 1.96 * float(np.std(medians, ddof=1)) / len(medians) ** 0.5 if len(medians) > 1 else measurement.std_ms
