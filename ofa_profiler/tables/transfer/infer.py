"""The times of ops that were not measured: those of another device, times a factor that measured ops tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ofa_profiler.networks.op import Op
from ofa_profiler.tables.transfer.features import op_features
from ofa_profiler.tables.transfer.process import fit

#: Half the width of an interval that holds 80% of a normal distribution, in standard deviations.
_HALF_WIDTH = 1.2816


@dataclass(frozen=True)
class Inference:
    """Op -> its inferred time in milliseconds, and both ends of an interval that holds 80% of the true times.

    `left_out` are abs(inferred - measured) / measured of measured ops, each inferred from the other ones.
    """

    ms: Mapping[str, tuple[float, float, float]]
    left_out: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """The numbers of `like` in a table's JSON."""
        errors = self.left_out
        quantiles = [float(f"{q:.3g}") for q in np.quantile(errors, (0.5, 0.9))] if len(errors) > 1 else [None, None]
        return {"inferred": len(self.ms), "left_out_median": quantiles[0], "left_out_p90": quantiles[1]}


def infer(ops: Sequence[Op], base_ms: Mapping[str, float], measured_ms: Mapping[str, float]) -> Inference:
    """Infer the times of those `ops` that have a time on another device (`base_ms`) and are not in `measured_ms`.

    The logarithm of the factor between both devices is a Gaussian process over the features of the ops. At least one
    op must have both times.
    """
    known = [op for op in ops if op.key in base_ms]
    features = op_features(known, [base_ms[op.key] for op in known])
    measured = np.array([op.key in measured_ms for op in known])
    logs = np.array([math.log(measured_ms[op.key] / base_ms[op.key]) for op in known if op.key in measured_ms])
    mixture = fit(features[measured], logs)
    errors, _ = mixture.left_out()
    rest = [op for op, is_measured in zip(known, measured, strict=True) if not is_measured]
    if not rest:
        return Inference({}, _relative(errors))
    means, deviations = mixture.predict(features[~measured])
    ms = {
        op.key: (base_ms[op.key] * middle, base_ms[op.key] * middle / factor, base_ms[op.key] * middle * factor)
        for op, middle, factor in zip(
            rest, np.exp(means).tolist(), np.exp(_HALF_WIDTH * deviations).tolist(), strict=True
        )
    }
    return Inference(ms, _relative(errors))


def _relative(errors: np.ndarray) -> tuple[float, ...]:
    return tuple(float(abs(math.expm1(-error))) for error in errors) if len(errors) > 1 else ()
