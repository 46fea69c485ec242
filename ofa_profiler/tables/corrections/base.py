"""The base class of corrections. Table and correction together are the latency model.

The JSON of a table stores the method and its fitted values as `correction`. A new method is a frozen dataclass whose
fields are the fitted values. `register_correction` registers it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, ClassVar

from ofa_profiler.base.registry import Registry
from ofa_profiler.errors import UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.spaces.costs import Cost

#: (resolution of the network, op) -> milliseconds of the isolated op, infinity if unusable. The resolution is None if
#: the space has no choice of resolution.
OpMs = Callable[[int | None, Op], float]


class Correction(ABC):
    """Predicts the time of a network from the times of its isolated ops."""

    #: The name of the method in the JSON.
    method: ClassVar[str]

    @abstractmethod
    def cost(self, space: SearchSpace, op_ms: OpMs) -> Cost:
        """The milliseconds of each network of `space`; infinity for a network with an op of infinite time.

        It must call `op_ms` for all ops of the space before it returns, so that the table finds missing ops.
        """

    def interval_factors(self, level: float) -> tuple[float, float] | None:  # noqa: ARG002
        """The factors from a prediction to both ends of its interval, which holds `level` of the networks.

        None if the correction does not know its error, or not well enough for this level.
        """
        return None

    def to_json(self) -> dict[str, Any]:
        """The method and its fitted values, in plain JSON types. `read_correction` reads the result."""
        assert is_dataclass(self), "a correction must be a frozen dataclass"
        return {"method": self.method, **asdict(self)}

    @classmethod
    def from_json(cls, fitted: Mapping[str, Any]) -> Correction:
        """Read the result of `to_json` without the method. Raises `UsageError`."""
        try:
            return cls(**fitted)
        except TypeError as error:
            raise UsageError(f"'correction' has wrong fields for the method {cls.method!r}: {error}") from None


_METHODS: Registry[type[Correction]] = Registry("correction method")


def register_correction(correction: type[Correction]) -> None:
    """Register a method for all tables. Raises `UsageError` if its name is taken."""
    _METHODS.add(correction.method, correction)


def read_correction(data: Any) -> Correction:
    """Read the `correction` of a table's JSON. Raises `UsageError`, also for an unknown method."""
    method = data.get("method") if isinstance(data, Mapping) else None
    if not isinstance(method, str) or method not in _METHODS.names():
        raise UsageError(f"'correction' has the unknown method {method!r}; choose from {', '.join(_METHODS.names())}")
    return _METHODS.get(method).from_json({name: value for name, value in data.items() if name != "method"})
