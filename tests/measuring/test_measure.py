"""Measuring through the local device: the same agent, driven from here, and what goes wrong on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.kits import QUICK, bytes_model, conv_model, stub_runtime

from ofa_profiler.devices import Agent, LocalDevice, open_device
from ofa_profiler.devices.local import LocalAgent
from ofa_profiler.errors import DeviceError, TransientDeviceError, UsageError
from ofa_profiler.measuring.progress import MeasuringProgress
from ofa_profiler.measuring.session import measure
from ofa_profiler.protocol.journal import read_journal


@pytest.fixture
def models(tmp_path):
    return [conv_model(tmp_path / "models", f"conv{k}", k) for k in (1, 3, 5)]


class Flaky(LocalDevice):
    """This machine, whose agent is killed (with its worker left to itself) after so many records, once per number."""

    def __init__(self, *deaths: int) -> None:
        self.deaths = list(deaths)
        self.starts = 0

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        agent = super().start(kit, arguments)
        assert isinstance(agent, LocalAgent)
        self.starts += 1
        if self.deaths:
            left, read = self.deaths.pop(0), agent.read_line

            def read_line(limit: int) -> bytes:
                nonlocal left
                if left == 0:
                    os.kill(agent.pid, signal.SIGKILL)
                left -= 1
                # What it had written meanwhile is lost with it: how far it got in that time must not matter.
                return read(limit) if left >= 0 else b""

            agent.read_line = read_line  # type: ignore[method-assign]
        return agent


class Liar(LocalDevice):
    """A device whose agent says what it is told to."""

    def __init__(self, *lines: bytes, code: int = 0) -> None:
        self.lines, self.code = lines, code

    def start(self, kit: Path | None, arguments: Sequence[str]) -> Agent:
        device, left = self, list(self.lines)

        class Lines(Agent):
            def read_line(self, limit: int) -> bytes:
                return left.pop(0)[:limit] if left else b""

            def finish(self) -> tuple[str, str]:
                return f"exit code {device.code}", "last\nwords"

            def close(self) -> None:
                pass

        return Lines()


def test_measures_and_keeps_samples_by_round(models, tmp_path):
    seen: list[MeasuringProgress] = []
    with open_device("local") as device:
        found = measure(device, models, QUICK, progress=seen.append)
    assert list(found) == [model.key for model in models]
    for measurement in found.values():
        assert measurement.ok
        assert QUICK.min_rounds <= len(measurement.rounds_ms) <= QUICK.max_rounds
        assert 0 < measurement.percentile_ms(10) <= measurement.median_ms <= measurement.percentile_ms(90)
        assert measurement.median_of_rounds_ms(0, 2) > 0
        assert measurement.median_of_rounds_ms(1, 2) > 0
        assert measurement.half_width is not None
    assert seen[-1].finished == seen[-1].models == 3
    assert seen[-1].done == seen[-1].total >= 3 * QUICK.min_rounds
    assert seen[-1].left_s == 0


def test_a_failed_model_is_a_measurement_too(models, tmp_path):
    bad = bytes_model(tmp_path / "models", "bad", b"no model")
    with open_device("local") as device:
        found = measure(device, [*models, bad], QUICK)
    assert found["bad"].status == "failed"
    assert found["bad"].error
    assert found["bad"].rounds_ms == ()
    assert all(found[model.key].ok for model in models)


def test_a_finished_journal_is_not_measured_again(models, tmp_path):
    path = tmp_path / "t.jsonl"
    with open_device("local") as device:
        first = measure(device, models, QUICK, journal=path)
    content = path.read_bytes()
    assert measure(Liar(), models, QUICK, journal=path) == first
    assert path.read_bytes() == content


def test_more_time_goes_on_with_what_was_cut_short(models, tmp_path):
    path = tmp_path / "t.jsonl"
    settings = replace(QUICK, target_half_width=1e-9, time_limit_s=0.001)
    with open_device("local") as device:
        first = measure(device, models, settings, journal=path)
        assert [len(m.rounds_ms) for m in first.values()] == [1, 1, 1]
        second = measure(device, models, replace(settings, time_limit_s=60.0), journal=path)
    for key, measurement in second.items():
        assert len(measurement.rounds_ms) == QUICK.max_rounds
        assert measurement.rounds_ms[0] == first[key].rounds_ms[0]


def test_a_killed_agent_is_started_again_and_nothing_is_lost(models, tmp_path):
    path = tmp_path / "t.jsonl"
    device = Flaky(2, 1, 3)  # the second time before its first visit
    found = measure(device, models, QUICK, journal=path)
    assert device.starts == 4
    assert all(measurement.ok for measurement in found.values())
    replay, _ = read_journal(path)
    for visits in replay.visits.values():
        assert [visit.round for visit in visits] == list(range(len(visits)))
        assert QUICK.min_rounds <= len(visits) <= QUICK.max_rounds


@pytest.mark.slow
def test_an_agent_that_never_gets_anywhere_is_given_up(models):
    device = Flaky(0, 0, 0, 0, 0)
    with pytest.raises(TransientDeviceError, match="SIGKILL"):
        measure(device, models, QUICK)
    assert device.starts == 3


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "ended before it was finished.*exit code 0.*last words"),
        ([b'{"type": "device"'], "ended before"),
        ([b"garbage\n", b"\xff\n", b"12\n"], "ended before"),
        ([b'garbage {"type": "visit"\n'], "cannot be read"),
        ([b"garbage\n" * 10_000] * 20, "cannot be read"),
        ([b'{"type": "visit", "key": "conv1", "round": 0, "status": "ok", "seconds": NaN}\n'], "NaN"),
        ([b'{"type": "visit", "key": "conv1", "round": 0}\n'], "seconds"),
        (
            [b'{"type": "visit", "key": "other", "round": 0, "status": "failed", "error": "no", "seconds": 1}\n'],
            "no such model",
        ),
        ([b"x" * (9 << 20)], "longer"),
        ([b'{"type": "fatal", "error": "no runtime", "usage": false}\n'], "no runtime"),
    ],
)
def test_what_a_device_says_is_not_trusted(models, lines, words, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(DeviceError, match=words) as caught:
        measure(Liar(*lines), models, QUICK)
    assert "\n" not in str(caught.value)


def test_what_a_device_cannot_do_is_the_request_that_is_wrong(models):
    with pytest.raises(UsageError, match="no provider 'CUDA"), open_device("local") as device:
        measure(device, models, replace(QUICK, provider="CUDAExecutionProvider"))


def test_a_runtime_that_is_not_there(models, tmp_path, monkeypatch):
    stub = stub_runtime(tmp_path / "stub")
    (Path(stub["PYTHONPATH"]) / "onnxruntime.py").write_text("raise ImportError('no such library')")
    monkeypatch.setenv("PYTHONPATH", stub["PYTHONPATH"])
    with (
        pytest.raises(DeviceError, match="cannot be imported: ImportError: no such library"),
        open_device("local") as device,
    ):
        measure(device, models, QUICK)


@pytest.mark.parametrize(
    ("spec", "words"),
    [("ssh:", "must be"), ("", "unknown"), ("Local", "unknown")],
)
def test_unknown_devices_are_refused(spec, words):
    with pytest.raises(UsageError, match=words):
        open_device(spec)


def test_describe():
    with open_device("local") as device:
        described = device.describe()
    assert described.model
    assert described.runtime is None
    assert described.to_json()["python"].count(".") == 2
