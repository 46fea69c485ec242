"""From the sum of slots measured alone to the time of the network: a factor and an offset, fitted to whole networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: With fewer networks, the offset is not determined.
_FEWEST_FOR_OFFSET = 5


@dataclass(frozen=True)
class Correction:
    """`scale * sum + offset_ms`. `left_out_mape` is the mean error for a network that the fit leaves out."""

    scale: float = 1.0
    offset_ms: float = 0.0
    networks: int = 0
    left_out_mape: float | None = None

    @staticmethod
    def fitted(sums_ms: NDArray[np.float64], measured_ms: NDArray[np.float64]) -> Correction:
        """The fit of relative errors; without an offset if that predicts networks that are left out better."""
        if not len(sums_ms):
            return Correction()
        fits = [_fit_scale] + [_fit_both] * (len(sums_ms) >= _FEWEST_FOR_OFFSET)
        errors = [_left_out(fit, sums_ms, measured_ms) for fit in fits]
        best = int(np.argmin(errors))
        scale, offset = fits[best](sums_ms, measured_ms)
        if scale <= 0:  # the networks have nothing to do with the sums
            scale, offset = _fit_scale(sums_ms, measured_ms)
        return Correction(scale, offset, len(sums_ms), errors[best] if len(sums_ms) > 1 else None)

    def scaled(self, factor: float) -> Correction:
        """This one times a factor."""
        return Correction(self.scale * factor, self.offset_ms * factor, self.networks, self.left_out_mape)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Correction:
        """Read the result of `to_json`. Raises `TypeError` and `ValueError`."""
        found = Correction(**data)
        if not (float(found.scale) > 0 and np.isfinite([found.scale, found.offset_ms]).all()):
            raise ValueError("the correction must have a positive scale and a finite offset")
        return found


def _fit_scale(sums: NDArray[np.float64], measured: NDArray[np.float64]) -> tuple[float, float]:
    return float(np.exp(np.mean(np.log(measured / sums)))), 0.0


def _fit_both(sums: NDArray[np.float64], measured: NDArray[np.float64]) -> tuple[float, float]:
    matrix = np.column_stack([sums, np.ones(len(sums))]) / measured[:, np.newaxis]
    scale, offset = np.linalg.lstsq(matrix, np.ones(len(sums)), rcond=None)[0]
    return float(scale), float(offset)


def _left_out(fit: Any, sums: NDArray[np.float64], measured: NDArray[np.float64]) -> float:
    """The mean relative error of networks that the fit leaves out."""
    if len(sums) < 2:
        return 0.0
    errors = []
    for i in range(len(sums)):
        scale, offset = fit(np.delete(sums, i), np.delete(measured, i))
        errors.append(abs((scale * sums[i] + offset) / measured[i] - 1.0))
    return float(np.mean(errors))
