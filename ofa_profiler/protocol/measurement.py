"""The samples of one model, and the statistics computed from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Measurement:
    """All samples of one model. `rounds_ms` holds the samples of each visit, in ms, the first round first.

    `status` is `ok` or `failed`. A failed measurement has an `error`, no samples and no statistics. The statistics
    are those of all samples together.
    """

    key: str
    rounds_ms: tuple[tuple[float, ...], ...]
    status: str = "ok"
    error: str | None = None
    #: Half of the 95% confidence interval of the median, as a fraction of it, as the agent computes it.
    half_width: float | None = None

    @property
    def ok(self) -> bool:
        """Whether there are samples."""
        return self.status == "ok"

    @cached_property
    def samples_ms(self) -> NDArray[np.float64]:
        """The samples of all rounds together."""
        return np.concatenate([np.asarray(samples) for samples in self.rounds_ms]) if self.rounds_ms else np.empty(0)

    @property
    def median_ms(self) -> float:
        """Median of all samples."""
        return float(np.median(self.samples_ms))

    @property
    def mean_ms(self) -> float:
        """Mean of all samples."""
        return float(np.mean(self.samples_ms))

    @property
    def std_ms(self) -> float:
        """Standard deviation of all samples."""
        return float(np.std(self.samples_ms))

    def percentile_ms(self, percent: float) -> float:
        """The time that `percent` percent of the samples do not exceed."""
        return float(np.percentile(self.samples_ms, percent))

    def median_of_rounds_ms(self, start: int = 0, step: int = 1) -> float:
        """Median of the samples of every `step`-th round from `start`: (0, 2) even rounds, (1, 2) odd ones."""
        return float(np.median(np.concatenate([np.asarray(samples) for samples in self.rounds_ms[start::step]])))
