"""How models are run and how often. Within one table, these settings must not change."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.protocol.target import DEFAULT_TARGET, Target

#: Fields that the first journals do not have, and one that only int8 has.
_NEWER = {"reference_every_s", "drift_tolerance", "encoding", "spread_bytes", "weight_bytes"}


@dataclass(frozen=True)
class Settings:
    """A journal can be continued with another `time_limit_s`; every other field must be equal.

    Every model is visited once per round. A model is done when it had `min_rounds` and half of the 95% confidence
    interval of its median is at most `target_half_width` of the median, or when it had `max_rounds`.
    """

    target: Target = DEFAULT_TARGET
    #: Of the runtime, like an execution provider of onnxruntime; None is the runtime's default.
    provider: str | None = None
    threads: int = 1
    #: Seed of the order in which models are visited.
    seed: int = 0
    min_rounds: int = 3
    max_rounds: int = 10
    target_half_width: float = 0.02
    #: Time for the samples of one visit, after the warm-up. The two numbers of samples below take precedence.
    visit_s: float = 0.06
    min_visit_samples: int = 7
    max_visit_samples: int = 1000
    #: A model that does not respond for this long has failed.
    op_timeout_s: float = 60.0
    #: Time for all visits together. The first round is made in any case. None: no limit.
    time_limit_s: float | None = 600.0
    #: Seconds of visits between two measurements of the reference op, which tells whether the device is as fast as
    #: before; None: no reference. If its time differs from its usual level by more than `drift_tolerance` (and more
    #: than its normal variation), the visits since the previous reference are repeated.
    reference_every_s: float | None = 20.0
    drift_tolerance: float = 0.03
    #: A model runs in turns on copies of its inputs and outputs that take so many bytes together, if the runtime can do
    #: that. Then it finds them in the outer caches, as a block of a network does. 0: there is one copy. The model that
    #: the runtime profiles, a whole network, always has one.
    spread_bytes: int = 0
    #: The weights of the network whose blocks are measured. If they are more than caches hold, a model also runs in
    #: turns on copies of its own weights, so that it reads them from memory, as in the network. 0: unknown, or few.
    weight_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types, the fields of the target among the others."""
        values = asdict(self)
        values |= values.pop("target")
        order = ("runtime", "precision", "provider", "threads", "batch")
        if not self.target.encoding:
            values.pop("encoding")
        for name in ("spread_bytes", "weight_bytes"):
            if not values[name]:
                values.pop(name)
        return {name: values.pop(name) for name in order} | values

    @staticmethod
    def from_json(data: Any) -> Settings:
        """Read what `to_json` of this version or an earlier one gives. Raises `UsageError`."""
        known = (*fields(Target), *fields(Settings)[1:])
        types = {field.name: str(field.type) for field in known}
        if not isinstance(data, dict) or not types.keys() - _NEWER <= data.keys() <= types.keys():
            raise UsageError(f"settings must be an object with the fields {', '.join(types)}")
        for name, value in data.items():
            if not _fits(value, types[name]):
                raise UsageError(f"settings: {name} must be {types[name]}, not {value!r:.40}")
        of_target = {field.name for field in fields(Target)}
        target = Target(**{name: value for name, value in data.items() if name in of_target})
        return Settings(target, **{name: value for name, value in data.items() if name not in of_target})


def _fits(value: Any, kind: str) -> bool:
    if value is None:
        return kind.endswith("| None")
    if kind.startswith("str"):
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if kind == "int" and not isinstance(value, int):
        return False
    try:
        return math.isfinite(value) and value >= 0
    except OverflowError:  # a whole number of more than 300 digits
        return False
