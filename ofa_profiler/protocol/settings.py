"""How models are run and how often: the part of a measurement that must not change within one table."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.protocol.target import DEFAULT_TARGET, Target

#: What the first journals do not have.
_NEWER = {"reference_every_s", "drift_tolerance"}


@dataclass(frozen=True)
class Settings:
    """Everything but `time_limit_s` must be equal to continue a journal.

    Every model is visited once per round. After `min_rounds` a model is done when half of the 95%
    confidence interval of its median is at most `target_half_width` of it, or after `max_rounds`.
    """

    target: Target = DEFAULT_TARGET
    #: Of the runtime, like an execution provider of onnxruntime; None is the runtime's default.
    provider: str | None = None
    threads: int = 1
    #: Of the order in which models are visited.
    seed: int = 0
    min_rounds: int = 3
    max_rounds: int = 10
    target_half_width: float = 0.02
    #: Time for the samples of one visit, after the warm-up, within the two numbers of samples below.
    visit_s: float = 0.06
    min_visit_samples: int = 7
    max_visit_samples: int = 1000
    #: A model that gives no sign of life for this long has failed.
    op_timeout_s: float = 60.0
    #: Time for all visits together; the first round comes in any case. None: no limit.
    time_limit_s: float | None = 600.0
    #: Seconds of visits between two looks at the reference op, which tells whether the device is still as
    #: fast as it was; None: do not look. What was visited while it was off by more than `drift_tolerance`
    #: (and more than it varies anyway) is visited again.
    reference_every_s: float | None = 20.0
    drift_tolerance: float = 0.03

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON types, the fields of the target among the others."""
        values = asdict(self)
        values |= values.pop("target")
        order = ("runtime", "precision", "provider", "threads", "batch")
        return {name: values.pop(name) for name in order} | values

    @staticmethod
    def from_json(data: Any) -> Settings:
        """Read what `to_json` gives, of earlier versions too. Raises `UsageError`."""
        known = (*fields(Target), *fields(Settings)[1:])
        types = {field.name: str(field.type) for field in known}
        if not isinstance(data, dict) or not types.keys() - _NEWER <= data.keys() <= types.keys():
            raise UsageError(f"settings must be an object with the fields {', '.join(types)}")
        for name, value in data.items():
            if not _fits(value, types[name]):
                raise UsageError(f"settings: {name} must be {types[name]}, not {value!r:.40}")
        target = Target(**{field.name: data[field.name] for field in fields(Target)})
        return Settings(target, **{name: value for name, value in data.items() if not hasattr(target, name)})


def _fits(value: Any, kind: str) -> bool:
    if value is None:
        return kind.endswith("| None")
    if kind.startswith("str"):
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if kind == "int" and not isinstance(value, int):
        return False
    return math.isfinite(value) and value >= 0
