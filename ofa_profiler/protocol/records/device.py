"""The record in which a device describes itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ofa_profiler.protocol.values import JsonObject, Kept, is_whole, number, text_or_none


@dataclass(frozen=True)
class RuntimeInfo:
    """The runtime that runs the models on a device. None: the device did not report it."""

    name: str | None
    version: str | None
    provider: str | None
    #: The settings of the runtime under which models run, by its own names.
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class State:
    """The values that change on a device during a measurement. One that could not be read is None or missing."""

    #: The clock of each core in use.
    mhz: Mapping[str, float]
    temperature_c: float | None

    @staticmethod
    def from_json(data: Any) -> State:
        """Read any value and ignore invalid parts: a faulty sensor must not make a measurement invalid."""
        state = data if isinstance(data, Mapping) else {}
        clocks = state.get("mhz")
        read = {core: number(value) for core, value in clocks.items()} if isinstance(clocks, Mapping) else {}
        mhz = {core: value for core, value in read.items() if value is not None}
        return State(mhz, number(state.get("temperature_c")))


@dataclass(frozen=True)
class Device(Kept):
    """The device, recorded once per start of the agent. None: the device did not report it."""

    time: str
    model: str | None
    soc: str | None
    machine: str | None
    power_mode: str | None
    #: A hash of the serial number, which differs between two devices of one model.
    unit: str | None
    #: Empty when the process could not be pinned to cores; None in a description.
    cores_used: tuple[int, ...] | None
    #: None in a description, which is made before a runtime is loaded.
    runtime: RuntimeInfo | None
    before: State
    #: Sentences about possible disturbances of the measurement.
    uncontrolled: tuple[str, ...]

    @staticmethod
    def from_json(data: JsonObject) -> Device:
        """Read and check an object. Raises `ValueError`.

        An object without `runtime` is a description: the answer to `--describe`.
        """
        if not isinstance(data.get("time"), str):
            raise ValueError("'time' must be a date")
        is_description = "runtime" not in data
        notes = data.get("uncontrolled", [] if is_description else None)
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise ValueError("'uncontrolled' must be a list of sentences")
        return Device(
            time=data["time"],
            **{name: text_or_none(data, name) for name in ("model", "soc", "machine", "power_mode", "unit")},
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
    if not isinstance(cores, list) or not all(map(is_whole, cores)):
        raise ValueError("'cores_used' must be a list of cores or null")
    return tuple(cores)


def _runtime(data: Any) -> RuntimeInfo:
    if not isinstance(data, dict):
        raise ValueError("'runtime' must be an object")
    options = data.get("options")
    if options is not None and not isinstance(options, dict):
        raise ValueError("'options' of the runtime must be an object")
    texts = {name: text_or_none(data, name) for name in ("name", "version", "provider")}
    return RuntimeInfo(**texts, options=options)
