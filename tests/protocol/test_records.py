"""Records: what an agent writes, checked once, kept as it came."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.records import DEVICE, END, REQUEST, RUN, SETTINGS, failed, look, visit

from ofa_profiler.protocol.records import (
    Alive,
    CoreUse,
    Device,
    Disturbed,
    End,
    Fatal,
    NodeProfile,
    Reference,
    Run,
    State,
    Unknown,
    Visit,
    Waiting,
    read_record,
)

USE = {"wall_ns": 100, "cpu_ns": 60, "waited_ns": 40, "involuntary": 3}
DISTURBED = {**visit("a", 0, [5, 6]), **USE, "type": "disturbed"}
KERNEL = {"name": "conv", "kind": "Conv", "ns": 5000, "calls": 1}
PROFILE = {"type": "profile", "key": "a", "kernels": [KERNEL], "runs": 5, "whole_ns": 6000, "seconds": 1.5}
RECORDS = [
    RUN,
    DEVICE,
    visit("a", 0, [5, 6]),
    failed("a", 0),
    DISTURBED,
    look(drifted=True),
    look(**failed("a", 0)),
    END,
    PROFILE,
    {"type": "profile", "key": "a", "kernels": None, "why": "no", "seconds": 0},
]


@pytest.mark.parametrize("data", RECORDS, ids=lambda data: data["type"])
def test_nothing_is_lost(data: dict[str, Any]) -> None:
    """A journal passes on what other versions write: unknown fields, and the order of all fields."""
    newer = {"before all": [1, {"x": None}], **data, "after all": 0.1}
    text = json.dumps(newer)
    record = read_record(json.loads(text))
    assert json.dumps(record.to_json()) == text
    assert record == read_record(data)  # they mean the same


def test_the_types() -> None:
    types = [type(read_record(data)) for data in RECORDS]
    assert types == [Run, Device, Visit, Visit, Disturbed, Reference, Visit, End, NodeProfile, NodeProfile]
    assert read_record({"type": "waiting", "lock": "x"}) == Waiting("")
    assert read_record({"type": "waiting", "why": "hot"}) == Waiting("hot")
    assert read_record({"type": "waiting", "why": 3}) == Waiting("")
    assert read_record({"type": "alive"}) == Alive()
    assert read_record({"type": "fatal", "error": "no", "usage": True}) == Fatal("no", usage=True, transient=False)
    assert read_record({"type": "fatal"}) == Fatal("None", usage=False, transient=False)
    assert read_record({"type": "of a later version"}) == Unknown("of a later version")


def test_a_visit() -> None:
    record = Visit.from_json(visit("a", 2, [1_000, 3_000]))
    assert (record.key, record.round, record.samples_ns, record.ok) == ("a", 2, (1_000, 3_000), True)
    assert record.busy_s == pytest.approx(4.01e-6)
    lost = Visit.from_json(failed("a", 0))
    assert (lost.ok, lost.error, lost.samples_ns, lost.busy_s) == (False, "no", (), 0)


def test_a_visit_tells_how_much_of_the_core_it_had() -> None:
    record = Visit.from_json({**visit("a", 0, [5, 6]), **USE, "disturbed": True})
    assert (record.core_use, record.is_disturbed) == (CoreUse(100, 60, 40, 3), True)
    earlier = Visit.from_json(visit("a", 0, [5, 6]))
    assert (earlier.core_use, earlier.is_disturbed) == (None, False)


@given(
    st.dictionaries(st.sampled_from(sorted(USE)), st.none() | st.booleans() | st.integers() | st.floats() | st.text())
)
def test_counts_that_are_no_counts_do_not_make_a_visit_invalid(values: dict[str, Any]) -> None:
    record = Visit.from_json({**visit("a", 0, [5, 6]), **USE, **values})
    valid = all(type(value) is int and 0 <= value < 10**15 for value in values.values())
    counted = valid and values.get("wall_ns", 1) > 0
    assert record.core_use == (CoreUse(**{**USE, **values}) if counted else None)


def test_a_run_with_other_settings() -> None:
    other = replace(SETTINGS, threads=4)
    run = Run.from_json({**RUN, "of a later version": 1}).with_settings(other)
    assert run.settings == other
    assert run.to_json() == {**RUN, "of a later version": 1, "settings": other.to_json()}
    assert run.models == REQUEST.models


def test_a_description_has_no_runtime_yet() -> None:
    description = Device.from_json({"type": "device", "time": "2026-01-01", "model": "Board"})
    assert (description.runtime, description.cores_used, description.uncontrolled) == (None, None, ())
    assert Device.from_json({**DEVICE, "cores_used": None}).cores_used == ()
    assert Device.from_json({**DEVICE, "cores_used": [2, 3]}).cores_used == (2, 3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({**RUN, "format": 4}, "format 4; this version reads up to 3"),
        ({**RUN, "models": {"a": 1}}, "SHA-256"),
        ({**RUN, "settings": {}}, "settings must be"),
        ({**DEVICE, "model": ["Board"]}, "'model' must be text"),
        ({**DEVICE, "time": None}, "'time'"),
        ({**DEVICE, "runtime": {"version": 1.2}}, "'version' must be text"),
        ({**DEVICE, "uncontrolled": "no"}, "'uncontrolled'"),
        ({**DEVICE, "cores_used": "all"}, "'cores_used'"),
        ({**visit("a", 0, [5]), "round": -1}, "'round'"),
        ({**visit("a", 0, [5]), "seconds": 10**400}, "'seconds'"),
        ({**visit("a", 0, [5]), "half_width": "small"}, "'half_width'"),
        ({**END, "time_limit_s": -1}, "'time_limit_s'"),
        ({**PROFILE, "kernels": None}, "'why'"),
        ({**PROFILE, "kernels": []}, "'kernels'"),
        ({**PROFILE, "kernels": [{**KERNEL, "ns": 1.5}]}, "'ns'"),
        ({**PROFILE, "kernels": [{**KERNEL, "calls": 0}]}, "'calls'"),
        ({**PROFILE, "kernels": [{**KERNEL, "kind": None}]}, "a kernel must be"),
        ({**PROFILE, "runs": True}, "'runs'"),
        ({**RUN, "format": 3, "profile": "c"}, "'profile' is 'c'"),
    ],
)
def test_a_wrong_record_is_refused_in_one_line(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_record(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strange", [None, "hot", [], {"mhz": "fast", "temperature_c": "hot"}, {"mhz": {"0": True}}])
def test_a_strange_sensor_costs_no_measurement(strange: Any) -> None:
    assert State.from_json(strange) == State({}, None)
    assert Device.from_json({**DEVICE, "before": strange}).before == State({}, None)
    assert State.from_json({"mhz": {"0": 1500, "1": None}, "temperature_c": 40}) == State({"0": 1500.0}, 40.0)
