"""The correction of networks in mixed precision: that of both tables, and what a change of precision costs.

An int8 op alone quantizes its float32 input and dequantizes its output. In a network this happens only at the ends and
where the precision changes. The corrections of both tables know their own networks. So the time of a mixed network is

- for each slot, the `FEATURES` of its op, with the coefficients of its precision;
- for each end of the network, half of the constant of its precision;
- for each change between two slots, the milliseconds of its op (`quantize` or `dequantize`), 1, and the millions of
  elements of the tensor.

Before any mixed network is measured, a change takes as long as its op, without the cost of a run of its own. A network
of one precision then has exactly the latency that its table predicts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.architecture import Architecture
from ofa_profiler.networks.boundary import DEQUANTIZE, QUANTIZE, boundary_op
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.values import number
from ofa_profiler.spaces import get_space
from ofa_profiler.spaces.changes import change_kind, edge_part
from ofa_profiler.spaces.costs import AdditiveCost, Part
from ofa_profiler.spaces.mixed import PRECISIONS as PRECISION_OF_BITS
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.tables.corrections.base import Correction, OpMs
from ofa_profiler.tables.corrections.intervals import interval_factors
from ofa_profiler.tables.corrections.regression import CONSTANT, FEATURES, Regression, op_features, ridge

PRECISIONS = ("fp32", "int8")
#: The features of a change of precision: the time of its op, 1, and the elements of the tensor in millions.
CHANGE_FEATURES = ("ms", "changes", "elements")
CHANGES = (QUANTIZE, DEQUANTIZE)
#: (precision, feature), (kind of change, feature) and (precision, constant), in the order of a row of features.
COLUMNS = (
    *((precision, name) for precision in PRECISIONS for name in FEATURES),
    *((kind, name) for kind in CHANGES for name in CHANGE_FEATURES),
    *((precision, CONSTANT) for precision in PRECISIONS),
)

#: Precision, or int8 for changes -> the milliseconds of isolated ops.
MsOf = Mapping[str, OpMs]


def change_features(op: Op, milliseconds: float) -> tuple[float, ...]:
    """The `CHANGE_FEATURES` of a change whose op takes so many milliseconds alone."""
    return milliseconds, 1.0, math.prod(op.input_shape) / 1e6


@dataclass(frozen=True)
class MixedCorrection:
    """Milliseconds per unit of each of the `COLUMNS`: precision or kind of change -> feature -> coefficient."""

    coefficients: Mapping[str, Mapping[str, float]]
    #: The names of the mixed networks that it was fitted to.
    networks: tuple[str, ...] = ()
    #: abs(measured - predicted) / measured of networks that were not used for their prediction. Intervals follow.
    held_out_errors: tuple[float, ...] = ()
    #: The number of these errors per network.
    errors_each: int = 1

    def __post_init__(self) -> None:
        for group, name in COLUMNS:
            values = self.coefficients.get(group) if isinstance(self.coefficients, Mapping) else None
            if not isinstance(values, Mapping) or number(values.get(name)) is None:
                raise UsageError(f"'mixed': 'coefficients' must have a finite number for {group}, {name}")
        errors = [number(error) for error in self.held_out_errors]
        if any(error is None or error < 0 for error in errors):
            raise UsageError("'mixed': 'held_out_errors' must be a list of numbers, none below 0")
        if not isinstance(self.errors_each, int) or self.errors_each < 1:
            raise UsageError("'mixed': 'errors_each' must be a number from 1 on")
        object.__setattr__(self, "networks", tuple(self.networks))
        object.__setattr__(self, "held_out_errors", tuple(self.held_out_errors))

    @staticmethod
    def before_fit(fp32: Correction, int8: Correction) -> MixedCorrection:
        """What the corrections of both tables say, before mixed networks are measured."""
        found = {precision: _coefficients(given) for precision, given in zip(PRECISIONS, (fp32, int8), strict=True)}
        # A run of an op of its own costs about as much for a change as for a float32 op.
        change = dict(zip(CHANGE_FEATURES, (1.0, min(found["fp32"]["ops"], 0.0), 0.0), strict=True))
        return MixedCorrection({**found, **dict.fromkeys(CHANGES, change)})

    @property
    def weights(self) -> NDArray[np.float64]:
        """The coefficients in the order of `COLUMNS`."""
        return np.array([self.coefficients[group][name] for group, name in COLUMNS])

    def fitted(
        self, features: NDArray[np.float64], measured_ms: Sequence[float], names: Sequence[str]
    ) -> MixedCorrection:
        """The correction fitted to networks with these features (N, C), towards this one."""
        weights, errors = ridge(features, np.asarray(measured_ms, dtype=float), self.weights)
        coefficients: dict[str, dict[str, float]] = {}
        for (group, name), weight in zip(COLUMNS, weights, strict=True):
            coefficients.setdefault(group, {})[name] = float(weight)
        return replace(self, coefficients=coefficients, networks=tuple(names), held_out_errors=tuple(np.abs(errors)))

    def interval_factors(self, level: float) -> tuple[float, float] | None:
        """As `Correction.interval_factors`."""
        return interval_factors(self.held_out_errors, level, self.errors_each)

    def cost(self, space: MixedSpace, op_ms: MsOf) -> AdditiveCost:
        """The milliseconds of each network of `space`; infinity for a network with an op of infinite time."""
        return AdditiveCost(space, (*self._slots(space, op_ms), *self._changes(space, op_ms)))

    def _slots(self, space: MixedSpace, op_ms: MsOf) -> Iterator[Part]:
        """The ops, and the constants at the ends."""
        by_precision = {
            precision: AdditiveCost.from_ops_by_resolution(space, partial(self._op_ms, precision, op_ms))
            for precision in PRECISIONS
        }
        order = tuple(PRECISION_OF_BITS.values())
        for slot in range(len(space.slots)):
            parts = [by_precision[precision].parts[slot] for precision in order]
            yield Part((space.bits_gene(slot), *parts[0].genes), np.stack([part.values for part in parts]))
        constants = np.array([self.coefficients[precision][CONSTANT] / 2 for precision in order])
        for end in (0, len(space.slots) - 1):
            yield Part((space.bits_gene(end),), constants)

    def _op_ms(self, precision: str, op_ms: MsOf, resolution: int | None, op: Op) -> float:
        milliseconds = op_ms[precision](resolution, op)
        if not math.isfinite(milliseconds):
            return math.inf
        features = zip(FEATURES, op_features(op, milliseconds), strict=True)
        return sum(self.coefficients[precision][name] * value for name, value in features)

    def _changes(self, space: MixedSpace, op_ms: MsOf) -> Iterator[Part]:
        for edge in space.edges:
            if edge.before is not None and edge.after is not None:
                yield edge_part(space, edge, lambda kind, shape: self._change_ms(boundary_op(kind, shape), op_ms))

    def _change_ms(self, op: Op, op_ms: MsOf) -> float:
        milliseconds = op_ms["int8"](None, op)
        if not math.isfinite(milliseconds):
            return math.inf
        features = zip(CHANGE_FEATURES, change_features(op, milliseconds), strict=True)
        return sum(self.coefficients[op.kind][name] * value for name, value in features)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types. `from_json` turns it into an equal correction."""
        return {
            "coefficients": {group: dict(values) for group, values in self.coefficients.items()},
            "networks": list(self.networks),
            "held_out_errors": list(self.held_out_errors),
            "errors_each": self.errors_each,
        }

    @staticmethod
    def from_json(data: Any) -> MixedCorrection:
        """Read the result of `to_json`. Raises `UsageError`."""
        try:
            return MixedCorrection(**data)
        except TypeError as error:
            raise UsageError(f"'mixed': 'correction' has wrong fields: {error}") from None


def _coefficients(correction: Correction) -> dict[str, float]:
    if isinstance(correction, Regression):
        return {**correction.coefficients, CONSTANT: correction.constant}
    return {name: float(name == "ms") for name in (*FEATURES, CONSTANT)}


# --- features of networks ------------------------------------------------------------------------------------


def mixed_features(architectures: Iterable[Architecture], op_ms: MsOf) -> NDArray[np.float64]:
    """Architectures of mixed spaces -> the sums of their `COLUMNS` (N, C)."""
    return np.array([_features(architecture, op_ms) for architecture in architectures]).reshape(-1, len(COLUMNS))


def _features(architecture: Architecture, op_ms: MsOf) -> list[float]:
    space = get_space(architecture.space)
    assert isinstance(space, MixedSpace)
    ops = [op for _, op in space.layout(architecture)]
    precisions = list(space.precisions(architecture).values())
    sums = dict.fromkeys(COLUMNS, 0.0)
    for op, precision in zip(ops, precisions, strict=True):
        features = op_features(op, op_ms[precision](architecture.resolution, op))
        for name, value in zip(FEATURES, features, strict=True):
            sums[precision, name] += value
    for (op, before), (_, after) in pairwise(zip(ops, precisions, strict=True)):
        if (kind := change_kind(before, after)) is not None:
            change = boundary_op(kind, op.output_shape)
            for name, value in zip(CHANGE_FEATURES, change_features(change, op_ms["int8"](None, change)), strict=True):
                sums[kind, name] += value
    for precision in (precisions[0], precisions[-1]):
        sums[precision, CONSTANT] += 0.5
    return [sums[column] for column in COLUMNS]
