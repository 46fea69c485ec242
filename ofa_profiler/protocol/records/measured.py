"""The records of a measurement: visits of models and of the reference op, and the end."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import Any

from ofa_profiler.protocol.records.device import State
from ofa_profiler.protocol.values import JsonObject, Kept, is_nonnegative, is_whole

_LONGEST_NS = 10**15


@dataclass(frozen=True)
class CoreUse:
    """How much of its cores a visit had while it took samples. Only Linux counts all of it."""

    wall_ns: int
    cpu_ns: int
    #: How long an average thread was ready to run and had no core.
    waited_ns: int
    #: Involuntary context switches of all threads.
    involuntary: int

    @staticmethod
    def from_json(data: JsonObject) -> CoreUse | None:
        """Read the fields of a visit; None if one is missing or invalid, as in journals of earlier versions."""
        values = {field.name: data.get(field.name) for field in fields(CoreUse)}
        if not all(is_whole(value) for value in values.values()):
            return None
        found = CoreUse(**values)  # type: ignore[arg-type]
        return found if found.wall_ns > 0 and all(0 <= value < _LONGEST_NS for value in astuple(found)) else None


@dataclass(frozen=True)
class ModelRun(Kept):
    """One visit of a model: it was loaded, warmed up and sampled, or an error prevented this."""

    key: str
    #: Includes loading and warm-up.
    seconds: float
    #: Empty when the model failed.
    samples_ns: tuple[int, ...]
    warmup_ns: int
    #: Half of the 95% confidence interval of the median of all samples so far, as a fraction of it.
    half_width: float | None
    error: str | None
    core_use: CoreUse | None

    @property
    def ok(self) -> bool:
        """Whether there are samples."""
        return self.error is None

    @property
    def busy_s(self) -> float:
        """The time in which the model ran, warm-up included."""
        return (self.warmup_ns + sum(self.samples_ns)) / 1e9


@dataclass(frozen=True)
class Visit(ModelRun):
    """A visit that measures a model. Each round visits every model that is not precise enough yet."""

    round: int

    @property
    def is_disturbed(self) -> bool:
        """Whether it counts although other programs disturbed it, because too many visits were repeated before."""
        return self.json.get("disturbed") is True

    @staticmethod
    def from_json(data: JsonObject) -> Visit:
        """Read and check an object. Raises `ValueError`."""
        common = _model_run(data)
        if not is_whole(data.get("round")) or data["round"] < 0:
            raise ValueError(f"'round' must be a whole number, 0 or more, not {data.get('round')!r:.40}")
        return Visit(**common, round=data["round"])


@dataclass(frozen=True)
class Disturbed(ModelRun):
    """A visit that other programs disturbed. It does not count, and is repeated."""

    @staticmethod
    def from_json(data: JsonObject) -> Disturbed:
        """Read and check an object. Raises `ValueError`."""
        return Disturbed(**_model_run(data))


@dataclass(frozen=True)
class Reference(ModelRun):
    """A visit of the reference op, which shows whether the speed of the device has changed.

    `again`: the visits since the previous one of the reference op do not count and are repeated.
    """

    drifted: bool
    again: bool

    @staticmethod
    def from_json(data: JsonObject) -> Reference:
        """Read and check an object. Raises `ValueError`."""
        common = _model_run(data)
        ok = common["error"] is None
        drifted, again = (data.get(name) if ok else False for name in ("drifted", "again"))
        if not isinstance(drifted, bool) or not isinstance(again, bool):
            raise ValueError("'drifted' and 'again' must be true or false")
        return Reference(**common, drifted=drifted, again=again)


def _model_run(data: JsonObject) -> dict[str, Any]:
    if not isinstance(data.get("key"), str):
        raise ValueError("'key' must be the key of a model")
    if not is_nonnegative(data.get("seconds")):
        raise ValueError("'seconds' must be a number, 0 or more")
    common = {"key": data["key"], "seconds": data["seconds"], "core_use": CoreUse.from_json(data), "json": data}
    if data.get("status") == "failed":
        if not isinstance(data.get("error"), str):
            raise ValueError("a failed visit must have an 'error'")
        return {**common, "samples_ns": (), "warmup_ns": 0, "half_width": None, "error": data["error"]}
    if data.get("status") != "ok":
        raise ValueError(f"unknown status {data.get('status')!r:.40}")
    if not is_whole(data.get("warmup_ns")) or data["warmup_ns"] < 0:
        raise ValueError("'warmup_ns' must be a whole number, 0 or more")
    width = data.get("half_width")
    if width is not None and not is_nonnegative(width):
        raise ValueError("'half_width' must be a number or null")
    return {
        **common,
        "samples_ns": _samples(data.get("samples_ns")),
        "warmup_ns": data["warmup_ns"],
        "half_width": width,
        "error": None,
    }


def _samples(samples: Any) -> tuple[int, ...]:
    if not isinstance(samples, list) or not samples:
        raise ValueError("'samples_ns' must be a list of times")
    for sample in samples:
        if not is_whole(sample) or not 0 < sample < _LONGEST_NS:
            raise ValueError(f"'samples_ns' holds {sample!r:.40}, which is not a time in nanoseconds")
    return tuple(samples)


@dataclass(frozen=True)
class End(Kept):
    """The end of a measurement: every model is finished, or the time limit is reached."""

    time_limit_s: float | None
    #: Models that did not reach the requested precision before the time limit.
    cut_short: tuple[str, ...]
    #: Models that did not reach the requested precision in the maximum number of rounds.
    noisy: tuple[str, ...]
    #: The reason if the device was hot during the measurement, even after pauses; else None.
    measured_hot: str | None
    after: State

    @staticmethod
    def from_json(data: JsonObject) -> End:
        """Read and check an object. Raises `ValueError`."""
        for name in ("cut_short", "noisy"):
            keys = data.get(name)
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise ValueError(f"{name!r} must be a list of models")
        limit_s = data.get("time_limit_s")
        if limit_s is not None and not is_nonnegative(limit_s):
            raise ValueError("'time_limit_s' must be a number or null")
        return End(
            limit_s,
            tuple(data["cut_short"]),
            tuple(data["noisy"]),
            data["measured_hot"] if isinstance(data.get("measured_hot"), str) else None,
            State.from_json(data.get("after")),
            json=data,
        )
