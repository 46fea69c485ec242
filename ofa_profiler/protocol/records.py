"""The records that an agent writes, as values: what was asked for, the device, the measurements, the end.

`device_agents/` lists them as JSON. `read_record` checks an object once, so whoever holds a record need not check it
again. A record keeps the object that it was read from: fields that this version does not know are written back.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ofa_profiler.errors import UsageError
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.settings import Settings

#: Version of the first line. A change that older readers would misread gets the next number.
FORMAT = 1

JsonObject = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A record that a journal keeps. It is made by `from_json` alone, so `json` and the other fields agree."""

    json: JsonObject = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The object that it was read from: the same fields in the same order, unknown ones included."""
        return dict(self.json)


@dataclass(frozen=True)
class Run(Kept):
    """The first line: what is asked for. `models` maps the key of each model to its SHA-256."""

    created: str
    settings: Settings
    #: What a table says about its origin: `spaces`, `resolutions`, `tool_version`.
    about: JsonObject
    models: Mapping[str, str]
    #: The op of each model, in the same order; None in journals of whole networks and of earlier versions.
    ops: tuple[Op, ...] | None

    @property
    def spaces(self) -> tuple[str, ...]:
        """The names of the search spaces that the models come from, if they come from any."""
        return tuple(self.about.get("spaces") or ())

    @staticmethod
    def from_json(data: JsonObject) -> Run:
        """Raises `ValueError`."""
        if data.get("format") != FORMAT:
            raise ValueError(f"format {data.get('format')!r:.40}; this version reads {FORMAT}")
        for name in ("about", "models"):
            if not isinstance(data.get(name), dict):
                raise ValueError(f"{name!r} must be an object")
        if not isinstance(data.get("created"), str):
            raise ValueError("'created' must be a date")
        try:
            settings = Settings.from_json(data.get("settings"))
        except UsageError as error:
            raise ValueError(error) from None
        spaces = data["about"].get("spaces")
        if spaces is not None and not (isinstance(spaces, list) and all(isinstance(name, str) for name in spaces)):
            raise ValueError("'spaces' in 'about' must be a list of names")
        models = data["models"]
        if not all(isinstance(sha256, str) for sha256 in models.values()):
            raise ValueError("'models' must give the SHA-256 of each model")
        return Run(data["created"], settings, data["about"], models, _ops(data), json=data)

    def with_settings(self, settings: Settings) -> Run:
        """The same request with other settings."""
        return Run.from_json({**self.json, "settings": settings.to_json()})


def _ops(run: JsonObject) -> tuple[Op, ...] | None:
    data = run.get("ops")
    if data is None:
        return None
    if not isinstance(data, list):
        raise ValueError("'ops' must be a list of ops")
    ops = tuple(map(Op.from_json, data))
    if [op.key for op in ops] != list(run["models"]):
        raise ValueError("'ops' must describe each of the models, in the same order")
    return ops


@dataclass(frozen=True)
class Runtime:
    """What runs the models on a device. None: it did not say."""

    name: str | None
    version: str | None
    provider: str | None


@dataclass(frozen=True)
class State:
    """What changes on a device during a measurement. What could not be read is None or missing."""

    #: The clock of each core in use.
    mhz: Mapping[str, float]
    temperature_c: float | None

    @staticmethod
    def from_json(data: Any) -> State:
        """Takes anything: no measurement is lost because a sensor says something strange."""
        state = data if isinstance(data, Mapping) else {}
        clocks = state.get("mhz")
        read = {core: _number(value) for core, value in clocks.items()} if isinstance(clocks, Mapping) else {}
        mhz = {core: value for core, value in read.items() if value is not None}
        return State(mhz, _number(state.get("temperature_c")))


@dataclass(frozen=True)
class Device(Kept):
    """The machine, once per start of the agent. What it does not say about itself is None."""

    time: str
    model: str | None
    soc: str | None
    machine: str | None
    power_mode: str | None
    #: Empty when the process could not be pinned to cores; None in a description.
    cores_used: tuple[int, ...] | None
    #: None in a description, which is made before a runtime is loaded.
    runtime: Runtime | None
    before: State
    #: Sentences about what may have disturbed the measurement.
    uncontrolled: tuple[str, ...]

    @staticmethod
    def from_json(data: JsonObject) -> Device:
        """Raises `ValueError`. An object without `runtime` is a description: the answer to `--describe`."""
        if not isinstance(data.get("time"), str):
            raise ValueError("'time' must be a date")
        is_description = "runtime" not in data
        notes = data.get("uncontrolled", [] if is_description else None)
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise ValueError("'uncontrolled' must be a list of sentences")
        return Device(
            time=data["time"],
            **{name: _text_or_none(data, name) for name in ("model", "soc", "machine", "power_mode")},
            cores_used=_cores(data),
            runtime=None if is_description else _runtime(data["runtime"]),
            before=State.from_json(data.get("before")),
            uncontrolled=tuple(notes),
            json=data,
        )


def _cores(device: JsonObject) -> tuple[int, ...] | None:
    if "cores_used" not in device:
        return None
    cores = device["cores_used"] or []
    if not isinstance(cores, list) or not all(map(_is_whole, cores)):
        raise ValueError("'cores_used' must be a list of cores or null")
    return tuple(cores)


def _runtime(data: Any) -> Runtime:
    if not isinstance(data, dict):
        raise ValueError("'runtime' must be an object")
    return Runtime(*(_text_or_none(data, name) for name in ("name", "version", "provider")))


@dataclass(frozen=True)
class ModelRun(Kept):
    """One model loaded, warmed up and sampled once, or the error that prevented it."""

    key: str
    #: With loading and warm-up.
    seconds: float
    #: Empty when the model failed.
    samples_ns: tuple[int, ...]
    warmup_ns: int
    #: Half of the 95% confidence interval of the median of all samples so far, as a fraction of it.
    half_width: float | None
    error: str | None

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
    """A measurement of a model. Each round visits every model that is not yet known well enough."""

    round: int

    @staticmethod
    def from_json(data: JsonObject) -> Visit:
        """Raises `ValueError`."""
        common = _model_run(data)
        if not _is_whole(data.get("round")) or data["round"] < 0:
            raise ValueError(f"'round' must be a whole number, 0 or more, not {data.get('round')!r:.40}")
        return Visit(**common, round=data["round"])


@dataclass(frozen=True)
class Reference(ModelRun):
    """A measurement of the reference op, which tells whether the device is as fast as before.

    `again`: the visits since the previous reference do not count, and are repeated.
    """

    drifted: bool
    again: bool

    @staticmethod
    def from_json(data: JsonObject) -> Reference:
        """Raises `ValueError`."""
        common = _model_run(data)
        ok = common["error"] is None
        drifted, again = (data.get(name) if ok else False for name in ("drifted", "again"))
        if not isinstance(drifted, bool) or not isinstance(again, bool):
            raise ValueError("'drifted' and 'again' must be true or false")
        return Reference(**common, drifted=drifted, again=again)


def _model_run(data: JsonObject) -> dict[str, Any]:
    if not isinstance(data.get("key"), str):
        raise ValueError("'key' must be the key of a model")
    if not _is_positive(data.get("seconds")):
        raise ValueError("'seconds' must be a number, 0 or more")
    fields = {"key": data["key"], "seconds": data["seconds"], "json": data}
    if data.get("status") == "failed":
        if not isinstance(data.get("error"), str):
            raise ValueError("a failed visit must have an 'error'")
        return {**fields, "samples_ns": (), "warmup_ns": 0, "half_width": None, "error": data["error"]}
    if data.get("status") != "ok":
        raise ValueError(f"unknown status {data.get('status')!r:.40}")
    if not _is_whole(data.get("warmup_ns")) or data["warmup_ns"] < 0:
        raise ValueError("'warmup_ns' must be a whole number, 0 or more")
    width = data.get("half_width")
    if width is not None and not _is_positive(width):
        raise ValueError("'half_width' must be a number or null")
    return {
        **fields,
        "samples_ns": _samples(data.get("samples_ns")),
        "warmup_ns": data["warmup_ns"],
        "half_width": width,
        "error": None,
    }


def _samples(samples: Any) -> tuple[int, ...]:
    if not isinstance(samples, list) or not samples:
        raise ValueError("'samples_ns' must be a list of times")
    for sample in samples:
        if not _is_whole(sample) or not 0 < sample < 10**15:
            raise ValueError(f"'samples_ns' holds {sample!r:.40}, which is no time in nanoseconds")
    return tuple(samples)


@dataclass(frozen=True)
class End(Kept):
    """Everything asked for is measured, or the time limit is reached."""

    time_limit_s: float | None
    #: Models that the time limit kept from the requested precision.
    cut_short: tuple[str, ...]
    #: Models that are less precise than requested after the largest number of rounds.
    noisy: tuple[str, ...]
    #: Why the device was hot during the measurement, even after pauses; None if it was not.
    measured_hot: str | None
    after: State

    @staticmethod
    def from_json(data: JsonObject) -> End:
        """Raises `ValueError`."""
        for name in ("cut_short", "noisy"):
            keys = data.get(name)
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise ValueError(f"{name!r} must be a list of models")
        limit_s = data.get("time_limit_s")
        if limit_s is not None and not _is_positive(limit_s):
            raise ValueError("'time_limit_s' must be a number or null")
        return End(
            limit_s,
            tuple(data["cut_short"]),
            tuple(data["noisy"]),
            data["measured_hot"] if isinstance(data.get("measured_hot"), str) else None,
            State.from_json(data.get("after")),
            json=data,
        )


# --- records that no journal keeps ------------------------------------------------------------------------


@dataclass(frozen=True)
class Waiting:
    """The agent waits: for another measurement on the device, or, if `why` is not empty, for that reason."""

    why: str

    @staticmethod
    def from_json(data: JsonObject) -> Waiting:
        """Takes anything."""
        return Waiting(data["why"] if isinstance(data.get("why"), str) else "")


@dataclass(frozen=True)
class Alive:
    """The answer to a sign of life of the host."""


@dataclass(frozen=True)
class Fatal:
    """Nothing can be measured. `usage`: another request could work; `transient`: another start may help."""

    error: str
    usage: bool
    transient: bool

    @staticmethod
    def from_json(data: JsonObject) -> Fatal:
        """Takes anything: whatever the reason, the agent has ended."""
        return Fatal(str(data.get("error")), data.get("usage") is True, data.get("transient") is True)


@dataclass(frozen=True)
class Unknown:
    """A record of another version. It is ignored."""

    type: str


Record = Run | Device | Visit | Reference | End | Waiting | Alive | Fatal | Unknown

_READ: Mapping[str, Callable[[JsonObject], Record]] = {
    "run": Run.from_json,
    "device": Device.from_json,
    "visit": Visit.from_json,
    "reference": Reference.from_json,
    "end": End.from_json,
    "waiting": Waiting.from_json,
    "alive": lambda _: Alive(),
    "fatal": Fatal.from_json,
}


def read_record(data: JsonObject) -> Record:
    """The record in an object with a `type`. Raises `ValueError` for one that is wrong."""
    read = _READ.get(data["type"])
    return Unknown(data["type"]) if read is None else read(data)


# --- values -------------------------------------------------------------------------------------------------


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> float | None:
    """None for what is not a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    with contextlib.suppress(OverflowError):
        number = float(value)
        return number if math.isfinite(number) else None
    return None


def _is_positive(value: Any) -> bool:
    number = _number(value)
    return number is not None and number >= 0


def _text_or_none(data: JsonObject, name: str) -> str | None:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name!r} must be text or null, not {value!r:.40}")
    return value
