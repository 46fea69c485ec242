"""What a correction is: the second half of a latency model, after the table.

The method and what was fitted for it are the `correction` of a table's JSON. A new method is a frozen dataclass with
what it fitted as its fields, in a file of its own, and its `register_correction`.
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

#: (resolution of the network, op) -> milliseconds of the op alone, infinity for one that cannot be used. The
#: resolution is None in spaces that have no such choice.
OpMs = Callable[[int | None, Op], float]


class Correction(ABC):
    """How the times of isolated ops become the time of a whole network."""

    #: Its name in the JSON.
    method: ClassVar[str]

    @abstractmethod
    def cost(self, space: SearchSpace, op_ms: OpMs) -> Cost:
        """The milliseconds of every network of `space`; infinity for a network with an op of infinite time.

        It calls `op_ms` for every op of the space before it returns: the table learns from this which ops it lacks.
        """

    def to_json(self) -> dict[str, Any]:
        """The method and all that it fitted, in plain JSON types; `read_correction` reads it back."""
        assert is_dataclass(self), "every correction is a frozen dataclass"
        return {"method": self.method, **asdict(self)}

    @classmethod
    def from_json(cls, fitted: Mapping[str, Any]) -> Correction:
        """Read what `to_json` gives besides the method. Raises `UsageError` for anything else."""
        try:
            return cls(**fitted)
        except TypeError as error:
            raise UsageError(f"'correction' of the method {cls.method!r} does not fit: {error}") from None


_METHODS: Registry[type[Correction]] = Registry("correction method")


def register_correction(correction: type[Correction]) -> None:
    """Make a method known to all tables. Raises `UsageError` if its name is taken."""
    _METHODS.add(correction.method, correction)


def read_correction(data: Any) -> Correction:
    """Read the `correction` of a table's JSON. Raises `UsageError` for a method that is not known here."""
    method = data.get("method") if isinstance(data, Mapping) else None
    if not isinstance(method, str) or method not in _METHODS.names():
        raise UsageError(f"'correction' has the unknown method {method!r}; choose from {', '.join(_METHODS.names())}")
    return _METHODS.get(method).from_json({name: value for name, value in data.items() if name != "method"})
