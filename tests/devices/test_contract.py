"""What every kind of device must do, whatever it is and however it is reached."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.kits import QUICK, STUB_NUMPY, STUB_RUNTIME, bytes_model, conv_model
from support.phones import Phone, shell_to
from support.remotes import SYSTEM
from support.sshd import free_port, spec_of

from ofa_profiler.base.parallel import Check, run_all
from ofa_profiler.base.registry import Registry
from ofa_profiler.devices import Device, DeviceKind, DeviceOptions, FakeDevice, device_kinds, open_device
from ofa_profiler.devices import registry as device_registry
from ofa_profiler.devices.android import ROOT
from ofa_profiler.devices.android.install_python import install_python
from ofa_profiler.devices.registry import register_device_kind
from ofa_profiler.errors import UsageError
from ofa_profiler.export import Model
from ofa_profiler.measuring.progress import MeasuringProgress
from ofa_profiler.measuring.session import measure, measure_into
from ofa_profiler.measuring.turns import TakingTurns, Turns
from ofa_profiler.protocol.journal import Journal, read_journal
from ofa_profiler.protocol.kit import run_record

SETTINGS = replace(QUICK, min_rounds=3, max_rounds=3)


@dataclass(frozen=True)
class Case:
    """A device, three models that run on it, and one that fails."""

    open: Callable[[], Device]
    models: list[Model]
    failing: Model


@pytest.fixture
def real_models(tmp_path: Path) -> tuple[list[Model], Model]:
    folder = tmp_path / "models"
    return [conv_model(folder, f"op {size}", size) for size in (1, 3, 5)], bytes_model(folder, "bad", b"no model")


@pytest.fixture
def fake(real_models: tuple[list[Model], Model]) -> Case:
    models, bad = real_models
    return Case(lambda: FakeDevice(failing=[bad.key]), models, bad)


@pytest.fixture
def local(real_models: tuple[list[Model], Model]) -> Case:
    return Case(lambda: open_device("local"), *real_models)


@pytest.fixture
def ssh(real_models: tuple[list[Model], Model], request: pytest.FixtureRequest) -> Case:
    server = request.getfixturevalue("ssh_server")
    request.getfixturevalue("me")
    return Case(lambda: open_device(spec_of(server), SYSTEM), *real_models)


@pytest.fixture(scope="module")
def stub_phone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    """An emulated phone with a runtime that needs no time."""
    with pytest.MonkeyPatch.context() as patch, Phone(tmp_path_factory.mktemp("phone")) as phone:
        bundle = request.getfixturevalue("bundle")
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        with contextlib.closing(shell_to(phone.spec)) as shell:
            install_python(shell, bundle, ROOT)
        library = phone.root / ROOT[1:] / bundle.name / "lib/python3.11"
        (library / "onnxruntime.py").write_text(STUB_RUNTIME)
        (library / "numpy.py").write_text(STUB_NUMPY)
        yield phone


@pytest.fixture
def adb(stub_phone: Phone, tmp_path: Path) -> Case:
    folder = tmp_path / "models"
    models = [bytes_model(folder, f"op {number}", b"ok %d" % number) for number in range(3)]
    return Case(lambda: open_device(stub_phone.spec, SYSTEM), models, bytes_model(folder, "bad", b"raise"))


@pytest.fixture(params=["fake", "local", "ssh", pytest.param("adb", marks=pytest.mark.slow)])
def case(request: pytest.FixtureRequest) -> Case:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Case)
    return found


def test_it_describes_itself(case):
    with case.open() as device:
        described = device.describe()
    assert described.machine
    assert described.time


def test_two_measurements_take_turns(case, tmp_path):
    turns, four = Turns(["a", "b"]), replace(SETTINGS, min_rounds=4, max_rounds=4)

    def measured(name: str, device: Device, check: Check) -> None:
        with turns.member(name, check):
            own = TakingTurns(device, turns, name, check)
            measure(own, [*case.models, case.failing], four, journal=tmp_path / f"{name}.jsonl")

    with case.open() as device:
        assert run_all({name: partial(measured, name, device) for name in "ab"}) == {"a": None, "b": None}
    replays = [read_journal(tmp_path / f"{name}.jsonl")[0] for name in "ab"]
    for replay in replays:
        assert replay.end is not None
        assert {key: len(visits) for key, visits in replay.visits.items()} == {
            **{model.key: 4 for model in case.models},
            case.failing.key: 1,
        }
    assert [len(replay.devices) for replay in replays] == [2, 2], "a b a b: each paused once"


def test_all_models_are_measured_and_a_failure_stays_alone(case, tmp_path):
    seen: list[MeasuringProgress] = []
    journal = tmp_path / "j.jsonl"
    with case.open() as device:
        found = measure(device, [*case.models, case.failing], SETTINGS, journal=journal, progress=seen.append)
    assert [measurement.ok for measurement in found.values()] == [True, True, True, False]
    assert found[case.failing.key].error
    for model in case.models:
        assert len(found[model.key].rounds_ms) == 3
        assert 0 < found[model.key].percentile_ms(10) <= found[model.key].percentile_ms(90)
    assert (seen[-1].finished, seen[-1].failed) == (4, 1)
    log, _ = read_journal(journal)
    assert log.end is not None
    assert log.devices[0].runtime.name == "onnxruntime"


def test_exact_values_and_the_wish_for_a_profile_reach_the_device(case, tmp_path):
    content = np.ones(case.models[0].inputs[0].shape, "<f4").tobytes()
    path = tmp_path / f"{hashlib.sha256(content).hexdigest()}.bin"
    path.write_bytes(content)
    models = [replace(case.models[0], values={"input": path})]
    run = run_record(models, SETTINGS, {}, profile=models[0].key)
    with case.open() as device, Journal(None, run) as journal:
        measure_into(journal, device, models, SETTINGS)
    assert [visit.error for visit in journal.replay.history] == [None] * 3
    assert journal.replay.profile is not None
    assert journal.replay.profile.kernels or journal.replay.profile.why


def test_an_interrupted_measurement_is_resumed_without_a_repetition(case, tmp_path):
    journal = tmp_path / "j.jsonl"

    def interrupt(progress: MeasuringProgress) -> None:
        if progress.visits == 4:
            raise KeyboardInterrupt

    with case.open() as device:
        with pytest.raises(KeyboardInterrupt):
            measure(device, case.models, SETTINGS, journal=journal, progress=interrupt)
        before = journal.read_bytes()
    with case.open() as device:
        found = measure(device, case.models, SETTINGS, journal=journal)
    assert journal.read_bytes().startswith(before)
    assert [len(measurement.rounds_ms) for measurement in found.values()] == [3, 3, 3]  # a visit twice cannot be read


def test_several_measurements_on_one_open_device(case):
    with case.open() as device:
        for models in case.models[:1], case.models[1:]:
            found = measure(device, models, QUICK)
            assert all(measurement.ok for measurement in found.values())


# --- the fake device --------------------------------------------------------------------------------------


def test_the_fake_device_gives_the_times_that_it_is_told(real_models, tmp_path):
    models, _ = real_models
    times = dict(zip([model.key for model in models], (0.5, 1.0, 2.0), strict=True))
    first = measure(FakeDevice(latency_ms=times.__getitem__, noise=0), models, SETTINGS)
    assert {key: measurement.median_ms for key, measurement in first.items()} == times
    one, two = (measure(FakeDevice(noise=0.05), models, SETTINGS) for _ in range(2))
    assert one == two
    for measurement in one.values():
        assert 0.9 < measurement.percentile_ms(10) / measurement.percentile_ms(90) < 1


def test_the_fake_device_visits_noisy_models_more_often(real_models, tmp_path):
    models, _ = real_models
    settings = replace(QUICK, min_rounds=2, max_rounds=8, target_half_width=0.02)
    journal = tmp_path / "j.jsonl"
    found = measure(FakeDevice(noise=0.04), models, settings, journal=journal)
    assert {len(measurement.rounds_ms) for measurement in found.values()} == {4}
    found = measure(FakeDevice(noise=1.0), models, settings)
    assert {len(measurement.rounds_ms) for measurement in found.values()} == {8}


# --- kinds ------------------------------------------------------------------------------------------------


def test_kinds_are_registered_once_and_listed_in_errors(monkeypatch: pytest.MonkeyPatch):
    registry: Registry[DeviceKind] = Registry("kind of device")
    for kind in device_kinds():
        registry.add(kind.name, kind)
    monkeypatch.setattr(device_registry, "_KINDS", registry)
    opened: list[tuple[str, DeviceOptions]] = []

    def open_lab(spec: str, options: DeviceOptions) -> Device:
        opened.append((spec, options))
        return FakeDevice(spec=spec)

    lab = DeviceKind("lab", open_lab, "lab:NUMBER")
    register_device_kind(lab)
    options = DeviceOptions(cores=(1,))
    assert open_device("lab:7", options).spec == "lab:7"
    assert opened == [("lab:7", options)]
    with pytest.raises(UsageError, match="already registered"):
        register_device_kind(lab)
    with pytest.raises(UsageError, match=r"unknown device 'toaster'; .*local.*ssh:.*adb:SERIAL, lab:NUMBER"):
        open_device("toaster")


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ("local:80", {}, "without an address"),
        ("local", {"benchmark_model": Path("x")}, "is for phones"),
        ("ssh:pi@board", {"benchmark_model": Path("x")}, "is for phones"),
        ("Local", {}, "unknown device"),
        ("", {}, "unknown device"),
        ("fake", {}, "unknown device"),
    ],
)
def test_a_wrong_name_or_option_is_one_clear_line(spec: str, options: dict[str, Any], words: str):
    with pytest.raises(UsageError, match=words) as caught:
        open_device(spec, DeviceOptions(**options))
    assert "\n" not in str(caught.value)
