"""Is this the same device? Is this the same request?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.records import DEVICE, REQUEST, RUN

from ofa_profiler.protocol.identity import HARDWARE, DeviceIdentity, difference, request_difference
from ofa_profiler.protocol.records import Device, Run
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.target import Target

BOARD = {
    **DEVICE,
    "soc": "bcm2712",
    "machine": "aarch64",
    "power_mode": "MAXN",
    "cores_used": [3],
    "runtime": {"name": "onnxruntime", "version": "1.20", "provider": "CPUExecutionProvider"},
}
TABLE = {
    "device": {name: BOARD[name] for name in ("model", "soc", "machine", "power_mode", "cores_used")},
    "runtime": "onnxruntime",
    "runtime_version": "1.20",
    "provider": "CPUExecutionProvider",
}


def identity(**changes: Any) -> DeviceIdentity:
    return DeviceIdentity.from_device(Device.from_json({**BOARD, **changes}))


def test_a_table_has_the_identity_of_its_device() -> None:
    assert DeviceIdentity.from_table(TABLE) == identity()
    unpinned = {**TABLE, "device": {**TABLE["device"], "cores_used": None}}
    assert DeviceIdentity.from_table(unpinned) == identity(cores_used=None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "Other"}, "model 'Board', now 'Other'"),
        ({"soc": "bcm2711"}, "soc 'bcm2712', now 'bcm2711'"),
        ({"machine": "armv7l"}, "machine 'aarch64', now 'armv7l'"),
        ({"power_mode": "10W"}, "power_mode 'MAXN', now '10W'"),
        ({"cores_used": [0]}, "cores_used (3,), now (0,)"),
        ({"cores_used": None}, "cores_used (3,), now ()"),
        ({"runtime": {**BOARD["runtime"], "version": "1.21"}}, "runtime_version '1.20', now '1.21'"),
        ({"runtime": {**BOARD["runtime"], "name": "litert"}}, "runtime 'onnxruntime', now 'litert'"),
        ({"runtime": {**BOARD["runtime"], "provider": "X"}}, "provider 'CPUExecutionProvider', now 'X'"),
    ],
)
def test_every_field_counts_where_a_journal_is_continued(changes: dict[str, Any], words: str) -> None:
    assert difference(identity(), identity(**changes)) == words
    replay = Replay(REQUEST)
    replay.add(Device.from_json(BOARD))
    replay.add(Device.from_json(BOARD))
    with pytest.raises(ValueError, match="another device or runtime than before"):
        replay.add(Device.from_json({**BOARD, **changes}))


@pytest.mark.parametrize("name", ["model", "soc", "machine", "power_mode", "cores_used"])
def test_what_one_side_does_not_know_is_no_difference(name: str) -> None:
    older = {field: value for field, value in BOARD.items() if field != name}
    assert difference(DeviceIdentity.from_device(Device.from_json(older)), identity()) == ""
    assert difference(identity(), DeviceIdentity.from_table({"device": {"model": "Board"}})) == ""
    assert difference(identity(), DeviceIdentity.from_table({"device": "a phone", "runtime": 3})) == ""


def test_what_was_unknown_at_first_must_not_change_either() -> None:
    replay = Replay(REQUEST)
    for mode in (None, "MAXN", None):
        replay.add(Device.from_json({**BOARD, "power_mode": mode}))
    with pytest.raises(ValueError, match="power_mode 'MAXN', now '10W'"):
        replay.add(Device.from_json({**BOARD, "power_mode": "10W"}))


def test_the_hardware_alone() -> None:
    assert difference(identity(), identity(cores_used=[0]), HARDWARE) == ""
    assert difference(identity(), identity(power_mode="10W"), HARDWARE) != ""


def test_requests() -> None:
    assert request_difference(REQUEST, REQUEST.with_settings(replace(REQUEST.settings, time_limit_s=None))) == ""
    assert request_difference(REQUEST, Run.from_json({**RUN, "created": "later"})) == ""
    newer = {**RUN, "about": {**RUN["about"], "tool_version": "9"}}
    assert request_difference(REQUEST, Run.from_json(newer)) == ""
    other = REQUEST.with_settings(replace(REQUEST.settings, target=Target(batch=2)))
    assert request_difference(REQUEST, other) == "batch 1, now 2"
    assert request_difference(REQUEST, Run.from_json({**RUN, "models": {"a": "00"}})) == "other models"


MODEL = {"file": "net.onnx", "sha256": "ab", "inputs": {"x": ["int64", 2]}, "inputs_sha256": {"x": "01"}, "blocks": []}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"file": "other.onnx"}, "file 'net.onnx', now 'other.onnx'"),
        ({"sha256": "cd"}, "sha256 'ab', now 'cd'"),
        ({"inputs": {"x": ["int64", 3]}}, "inputs {'x': ['int64', 2]}, now {'x': ['int64', 3]}"),
        ({"inputs_sha256": {"x": "02"}}, "other values of the input 'x'"),
        ({"blocks": [{}]}, "other blocks"),
    ],
)
def test_requests_for_models_of_users(change: dict[str, Any], words: str) -> None:
    one, other = (Run.from_json({**RUN, "about": {"spaces": [], "model": m}}) for m in (MODEL, {**MODEL, **change}))
    assert request_difference(one, other) == words
