"""The result of a verification: networks predicted and measured, and how well both agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.base.version import __version__
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.protocol.records import Device, End
from ofa_profiler.tables.summary import Facts, facts_html, facts_text
from ofa_profiler.verification import agreement

DEFAULT_SUBNETS = 30
DEFAULT_TIME_LIMIT_S = 300.0
#: Why a figure can be unknown although networks were measured.
_UNKNOWN = {
    "noise": "one round only, it takes two",
    "spearman": "all latencies are equal",
    "coverage": "the table has no intervals",
}


@dataclass(frozen=True)
class Subnet:
    """One network. `measured_ms`, `even_ms` and `odd_ms` are a `SteadyTime` (`protocol/steady.py`).

    All three are None for a network that failed (see `error`). `even_ms` and `odd_ms` are also None after one round.
    """

    architecture: Architecture
    predicted_ms: float
    measured_ms: float | None
    even_ms: float | None = None
    odd_ms: float | None = None
    model: Path | None = None
    error: str | None = None
    #: The interval of the prediction at `DEFAULT_LEVEL`; None if the table has none.
    interval_ms: tuple[float, float] | None = None

    @property
    def is_inside(self) -> bool | None:
        """Whether the interval holds the measurement; None without an interval or a measurement."""
        if self.interval_ms is None or self.measured_ms is None:
            return None
        return self.interval_ms[0] <= self.measured_ms <= self.interval_ms[1]

    def to_json(self) -> dict[str, Any]:
        """Return the entry in `ofa-verify --json`. A network that failed has an `error` and no time."""
        data = {
            "architecture": self.architecture.to_json(),
            "predicted_ms": self.predicted_ms,
            "interval_ms": None if self.interval_ms is None else list(self.interval_ms),
            "measured_ms": self.measured_ms,
            "model": str(self.model) if self.model else None,
        }
        return data if self.error is None else {**data, "error": self.error}


@dataclass(frozen=True, repr=False)
class Verification:
    """Networks predicted and measured, and how well both agree. Fractions are in [0, 1], NaN if unknown."""

    subnets: tuple[Subnet, ...]
    device: Device
    #: The end of the measurement, with the state of the device.
    end: End | None
    seed: int
    date: str

    @property
    def usable(self) -> tuple[Subnet, ...]:
        """The networks that were measured without an error."""
        return tuple(subnet for subnet in self.subnets if subnet.measured_ms is not None)

    @property
    def predicted_ms(self) -> NDArray[np.float64]:
        """The predicted latencies of the usable networks."""
        return np.array([subnet.predicted_ms for subnet in self.usable])

    @property
    def measured_ms(self) -> NDArray[np.float64]:
        """The measured latencies of the usable networks."""
        return np.array([subnet.measured_ms for subnet in self.usable], dtype=float)

    @property
    def mape(self) -> float:
        """Mean absolute percentage error of the predictions."""
        return agreement.mape(self.predicted_ms, self.measured_ms)

    @property
    def within_3pct(self) -> float:
        """Fraction of networks whose prediction is within 3% of the measurement."""
        return agreement.within(self.predicted_ms, self.measured_ms, 0.03)

    @property
    def within_5pct(self) -> float:
        """Fraction of networks whose prediction is within 5% of the measurement."""
        return agreement.within(self.predicted_ms, self.measured_ms, 0.05)

    @property
    def within_10pct(self) -> float:
        """Fraction of networks whose prediction is within 10% of the measurement."""
        return agreement.within(self.predicted_ms, self.measured_ms, 0.10)

    @property
    def spearman(self) -> float:
        """Rank correlation of predicted and measured latencies."""
        return agreement.spearman(self.predicted_ms, self.measured_ms)

    @property
    def ratio(self) -> float:
        """Geometric mean of predicted / measured latencies."""
        return agreement.ratio(self.predicted_ms, self.measured_ms)

    @property
    def bias(self) -> float:
        """Mean of (predicted - measured) / measured: above 0, the predictions are too high."""
        return agreement.bias(self.predicted_ms, self.measured_ms)

    @property
    def noise(self) -> float:
        """MAPE between the even and the odd rounds; not even a perfect prediction has a smaller error."""
        pairs = [(s.even_ms, s.odd_ms) for s in self.usable if s.even_ms is not None and s.odd_ms is not None]
        return agreement.mape([even for even, _ in pairs], [odd for _, odd in pairs])

    @property
    def coverage(self) -> float:
        """Fraction of networks that their interval holds."""
        inside = [subnet.is_inside for subnet in self.subnets if subnet.is_inside is not None]
        return sum(inside) / len(inside) if inside else math.nan

    def _facts(self) -> Facts:
        found = [("networks", f"{len(self.usable)} of {len(self.subnets)}"), ("device", str(self.device.model))]
        figures = {
            "MAPE": self.mape,
            "within 5%": self.within_5pct,
            "within 10%": self.within_10pct,
        }
        found += [(name, f"{value:.1%}") for name, value in figures.items()]
        return [*found, ("noise", self.spell("noise")), ("Spearman", self.spell("spearman", ".3f"))]

    def spell(self, name: str, spec: str = ".1%") -> str:
        """Return a figure for people; for one that is unknown, the reason."""
        value = float(getattr(self, name))
        return format(value, spec) if math.isfinite(value) else f"unknown ({_UNKNOWN[name]})"

    def __repr__(self) -> str:
        return facts_text("Verification", self._facts())

    def _repr_html_(self) -> str:
        return facts_html("predicted and measured networks", self._facts())

    def summary(self) -> dict[str, float | None]:
        """Return the figures in both `ofa-verify --json` and a table's `validation`; None if unknown."""
        names = ("mape", "within_3pct", "within_5pct", "within_10pct", "spearman", "bias", "noise", "coverage")
        values = {name: float(getattr(self, name)) for name in names}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the document of `ofa-verify --json`."""
        return {"subnets": [subnet.to_json() for subnet in self.subnets], **self.summary()}

    def validation(self) -> dict[str, Any]:
        """Return the `validation` of a table's JSON."""
        return {
            "subnets": len(self.usable),
            **self.summary(),
            "ratio": self.ratio if math.isfinite(self.ratio) else None,
            "failed": len(self.subnets) - len(self.usable),
            "seed": self.seed,
            "date": self.date,
            "tool_version": __version__,
        }
