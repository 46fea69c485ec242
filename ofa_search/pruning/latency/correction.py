"""From the sum of slots measured alone to the time of the network: a linear model, fitted to whole networks.

A slot alone has the cost of a run of its own, which is an offset of the network. And it finds weights in caches that
are too small for those of the network, so that the network needs more time for each megabyte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: So many networks per coefficient are needed at least.
_NETWORKS_EACH = 3
#: The coefficients that are fitted, from few to many: of the sum, 1, and the megabytes.
_CHOICES = ((0,), (0, 1), (0, 2), (0, 1, 2))
#: More coefficients must lower the error by this factor.
_WORTH = 0.95


@dataclass(frozen=True)
class Correction:
    """`scale * sum + offset_ms + ms_per_mb * megabytes`, these of weights and of tensors between slots.

    `left_out_mape` is the mean error for a network that the fit leaves out.
    """

    scale: float = 1.0
    offset_ms: float = 0.0
    ms_per_mb: float = 0.0
    networks: int = 0
    left_out_mape: float | None = None

    @staticmethod
    def fitted(
        sums_ms: NDArray[np.float64], megabytes: NDArray[np.float64], measured_ms: NDArray[np.float64]
    ) -> Correction:
        """The fit of relative errors with those coefficients that predict left-out networks best."""
        n = len(sums_ms)
        if not n:
            return Correction()
        relative = np.column_stack([sums_ms, np.ones(n), megabytes]) / measured_ms[:, np.newaxis]
        best, best_error = _weights(relative, (0,)), _left_out(relative, (0,))
        for chosen in _CHOICES[1:]:
            if n < _NETWORKS_EACH * len(chosen):
                continue
            weights, error = _weights(relative, chosen), _left_out(relative, chosen)
            if weights[0] > 0 and weights[2] >= 0 and error < _WORTH * best_error:
                best, best_error = weights, error
        scale, offset_ms, ms_per_mb = map(float, best)
        return Correction(scale, offset_ms, ms_per_mb, n, best_error if n > 1 else None)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Correction:
        """Read the result of `to_json`. Raises `TypeError` and `ValueError`."""
        found = Correction(**data)
        if not np.isfinite([found.scale, found.offset_ms, found.ms_per_mb]).all() or found.scale <= 0:
            raise ValueError("the correction must have finite numbers and a positive scale")
        if found.ms_per_mb < 0:
            raise ValueError("the correction must not have negative milliseconds per megabyte")
        return found


def _weights(relative: NDArray[np.float64], chosen: tuple[int, ...]) -> NDArray[np.float64]:
    """The coefficients of the `chosen` columns; the others are 0."""
    weights = np.zeros(relative.shape[1])
    if chosen == (0,):  # the middle of the ratios
        weights[0] = np.exp(-np.mean(np.log(relative[:, 0])))
    else:
        weights[list(chosen)] = np.linalg.lstsq(relative[:, chosen], np.ones(len(relative)), rcond=None)[0]
    return weights


def _left_out(relative: NDArray[np.float64], chosen: tuple[int, ...]) -> float:
    """The mean error of networks that the fit leaves out."""
    if len(relative) < 2:
        return 0.0
    errors = [relative[i] @ _weights(np.delete(relative, i, axis=0), chosen) - 1.0 for i in range(len(relative))]
    return float(np.mean(np.abs(errors)))
