"""What the lines of a journal mean: records go in one by one, in order, and each is checked.

The format is the agent's (`device_agents/agent.py` lists the records), so what a board wrote by itself
is a journal too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from ofa_profiler.errors import UsageError
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.settings import Settings

FORMAT = 1
#: Longer lines are no records: the longest that an agent writes has 1000 samples.
MAX_LINE = 8 << 20

Record = dict[str, Any]


class Garbled(ValueError):
    """Not even a JSON object: a line that was cut off, or that something else than an agent wrote."""


def parse_record(line: bytes) -> Record:
    """One line -> its record. Raises `ValueError` for anything that is not an object with a `type`."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"it says {name}")

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else refuse(text[:40])

    if len(line) >= MAX_LINE:
        raise ValueError(f"it is longer than {MAX_LINE} bytes")
    try:
        record = json.loads(line.decode("utf-8"), parse_constant=refuse, parse_float=finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise Garbled("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise Garbled(f"it is not JSON ({error.msg})") from None
    if not isinstance(record, dict):
        raise Garbled("it is not an object")
    if not isinstance(record.get("type"), str):
        raise ValueError("it is an object without a type")
    return record


class Log:
    """The meaning of a journal: records go in one by one, in order, and are checked."""

    def __init__(self) -> None:
        self.run: Record = {}
        self.devices: list[Record] = []
        self.visits: dict[str, list[Record]] = {}
        self.n_visits = 0
        #: Visits of the reference op; visits made again because it had drifted, and drifted ones that count.
        self.n_references = self.n_repeated = self.n_drifted = 0
        self._since_reference: list[str] = []
        #: Seconds in which the device was running models, warm-up included, and those with all around it.
        self.measuring_s = self.used_s = 0.0
        #: The last `end` record, None while there is more to do.
        self.end: Record | None = None

    def add(self, record: Record) -> bool:
        """Take a record in; False for one that no journal keeps. Raises `ValueError` if it is wrong."""
        kind = record["type"]
        if not self.run and kind != "run":
            raise ValueError("the first line must be of type 'run'")
        if kind == "run":
            self._add_run(record)
        elif kind == "device":
            self._add_device(record)
        elif kind == "visit":
            self._add_visit(record)
        elif kind == "reference":
            self._add_reference(record)
        elif kind == "end":
            _check_end(record)
            self.end = record
        else:
            return False
        return True

    def _add_run(self, record: Record) -> None:
        if self.run:
            raise ValueError("a second line of type 'run'")
        if record.get("format") != FORMAT:
            raise ValueError(f"format {record.get('format')!r}; this version reads {FORMAT}")
        for name in ("about", "models"):
            if not isinstance(record.get(name), dict):
                raise ValueError(f"{name!r} must be an object")
        if not isinstance(record.get("created"), str):
            raise ValueError("'created' must be a date")
        try:
            Settings.from_json(record.get("settings"))
        except UsageError as error:
            raise ValueError(error) from None
        if not all(isinstance(sha256, str) for sha256 in record["models"].values()):
            raise ValueError("'models' must give the SHA-256 of each model")
        self.run = record
        self.visits = {key: [] for key in record["models"]}

    def _add_device(self, record: Record) -> None:
        if not isinstance(record.get("runtime"), dict):
            raise ValueError("'runtime' must be an object")
        if not isinstance(record.get("time"), str):
            raise ValueError("'time' must be a date")
        notes = record.get("uncontrolled")
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise ValueError("'uncontrolled' must be a list of sentences")
        if self.devices and (difference := first_difference(_identity(self.devices[0]), _identity(record))):
            raise ValueError(f"another device or runtime than before ({difference})")
        self.devices.append(record)

    def _add_visit(self, record: Record) -> None:
        key = record.get("key")
        if not isinstance(key, str) or key not in self.visits:
            raise ValueError(f"no such model: {key!r}")
        before = self.visits[key]
        if before and before[-1]["status"] != "ok":
            raise ValueError(f"a visit of {key!r} after it had failed")
        if record.get("round") != len(before):
            raise ValueError(f"round {record.get('round')!r} of {key!r} where round {len(before)} was due")
        _check_visit(record)
        before.append(record)
        self.n_visits += 1
        if record["status"] == "ok":
            self._since_reference.append(key)
        else:
            self._since_reference = [other for other in self._since_reference if other != key]
        self._add_time(record)

    def _add_reference(self, record: Record) -> None:
        key = record.get("key")
        if not isinstance(key, str) or key not in self.visits:
            raise ValueError(f"no such model: {key!r:.200}")
        _check_visit(record)
        if record["status"] == "ok":
            drifted, again = record.get("drifted"), record.get("again")
            if not isinstance(drifted, bool) or not isinstance(again, bool):
                raise ValueError("'drifted' and 'again' must be true or false")
            if again:
                for visited in self._since_reference:
                    self.visits[visited].pop()
                self.n_repeated += len(self._since_reference)
            elif drifted:
                self.n_drifted += len(self._since_reference)
            self._since_reference = []
        self.n_references += 1
        self._add_time(record)

    def _add_time(self, visit: Record) -> None:
        self.end = None
        self.used_s += visit["seconds"]
        if visit["status"] == "ok":
            self.measuring_s += (visit["warmup_ns"] + sum(visit["samples_ns"])) / 1e9

    def measurement(self, key: str) -> Measurement | None:
        """All that is known of one model; None before its first visit."""
        visits = self.visits[key]
        if not visits:
            return None
        last = visits[-1]
        if last["status"] != "ok":
            return Measurement(key, (), "failed", last["error"])
        rounds = tuple(tuple(ns / 1e6 for ns in visit["samples_ns"]) for visit in visits)
        return Measurement(key, rounds, half_width=last.get("half_width"))

    def measurements(self) -> dict[str, Measurement]:
        """Every model that was visited, in the order of the request."""
        found = ((key, self.measurement(key)) for key in self.visits)
        return {key: measurement for key, measurement in found if measurement is not None}


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _check_visit(record: Record) -> None:
    if not _positive(record.get("seconds")):
        raise ValueError("'seconds' must be a number, 0 or more")
    if record.get("status") == "failed":
        if not isinstance(record.get("error"), str):
            raise ValueError("a failed visit must say its 'error'")
        return
    if record.get("status") != "ok":
        raise ValueError(f"unknown status {record.get('status')!r}")
    samples = record.get("samples_ns")
    if not isinstance(samples, list) or not samples:
        raise ValueError("'samples_ns' must be a list of times")
    for sample in samples:
        if not _whole(sample) or not 0 < sample < 10**15:
            raise ValueError(f"'samples_ns' holds {sample!r:.40}, which is no time in nanoseconds")
    if not _whole(record.get("warmup_ns")) or record["warmup_ns"] < 0:
        raise ValueError("'warmup_ns' must be a whole number, 0 or more")
    if record.get("half_width") is not None and not _positive(record["half_width"]):
        raise ValueError("'half_width' must be a number or null")


def _check_end(record: Record) -> None:
    for name in ("cut_short", "noisy"):
        value = record.get(name)
        if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
            raise ValueError(f"{name!r} must be a list of models")
    if record.get("time_limit_s") is not None and not _positive(record["time_limit_s"]):
        raise ValueError("'time_limit_s' must be a number or null")


def _identity(device: Record) -> dict[str, Any]:
    """What must not change within one journal."""
    names = ("model", "soc", "machine", "power_mode", "cores_used")
    return {**{name: device.get(name) for name in names}, **{f"runtime {k}": v for k, v in device["runtime"].items()}}


def first_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first difference of two mappings, in words; empty if there is none."""
    for name in {**one, **other}:
        if one.get(name) != other.get(name):
            return f"{name} {one.get(name)!r:.60}, now {other.get(name)!r:.60}"
    return ""
