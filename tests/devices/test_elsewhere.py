"""Devices that other processes reach: through any executor, and through workers of Dask."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.small_spaces import TINY

from ofa_profiler import profile
from ofa_profiler.base.registry import Registry
from ofa_profiler.devices import Device, DeviceKind, ElsewhereDevice, FakeDevice, elsewhere
from ofa_profiler.devices import registry as device_registry
from ofa_profiler.errors import DeviceError, TransientDeviceError, UsageError


class Lab(FakeDevice):
    """A device whose jobs can end before they begin, and which counts its sessions."""

    sessions: ClassVar[list[int]] = []

    def measure_kit(self, kit: Path, seen: int, visits: int | None = None) -> Iterator[Any]:  # type: ignore[override]
        self.sessions.append(seen)
        if self.spec == "lab:flaky" and len(self.sessions) == 2:
            yield from list(super().measure_kit(kit, seen, visits))[:5]
            raise TransientDeviceError("the cable was cut")
        yield from super().measure_kit(kit, seen, visits)

    def prepare_runtime(self, runtime: str, at_most: str | None = None) -> str | None:
        if runtime == "litert":
            raise UsageError("litert is not for this device")
        return None


@pytest.fixture(autouse=True)
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    kinds: Registry[DeviceKind] = Registry("kind of device")
    kinds.add("lab", DeviceKind("lab", lambda spec, _: Lab(spec=spec), "lab:NAME"))
    monkeypatch.setattr(device_registry, "_KINDS", kinds)
    monkeypatch.setattr(Lab, "sessions", [])
    return Lab.sessions


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def rows(device: Device, folder: Path) -> Any:
    result = profile(device, TINY, out=folder, calibrate=0, name="table")
    return [(row.op, row.samples, row.median_ms) for row in result.table.rows]


def test_the_table_is_the_same_and_rounds_are_jobs(
    lab: list[int], tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFA_CACHE_DIR", cache)
    direct = rows(Lab(spec="lab:one"), tmp_path / "direct")
    sessions = len(lab)
    elsewhere._store.cache_clear()
    monkeypatch.setattr(elsewhere, "_VISITS", 10)
    with ThreadPoolExecutor(1) as executor:
        assert rows(ElsewhereDevice("lab:one", executor), tmp_path / "elsewhere") == direct
        assert len(lab) > sessions + 1
        assert rows(ElsewhereDevice("lab:flaky", executor), tmp_path / "flaky") == direct


def test_its_errors_come_back_as_what_they_are() -> None:
    with ThreadPoolExecutor(1) as executor:
        device = ElsewhereDevice("lab:one", executor)
        with pytest.raises(UsageError, match="litert is not for this device"):
            device.prepare_runtime("litert")
        assert device.describe().model == "fake device"
    with pytest.raises(DeviceError, match="the process that reaches it failed"):
        device.describe()
    with pytest.raises(UsageError, match="unknown device"):
        ElsewhereDevice("board:one", executor)


#: What a worker loads at its start: devices `lab:NAME` that take a while for each job, and say which jobs began.
WORKER = """
import os, time
from pathlib import Path
from ofa_profiler.devices import DeviceKind, FakeDevice, register_device_kind

class Lab(FakeDevice):
    def measure_kit(self, kit, seen, visits=None):
        Path(os.environ["LAB"], f"{self.spec[4:]}-{seen}-{os.getpid()}").touch()
        time.sleep(0.5)
        yield from super().measure_kit(kit, seen, visits)

def dask_setup(worker):
    register_device_kind(DeviceKind("lab", lambda spec, _: Lab(spec=spec), "lab:NAME"))
"""


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", *arguments]
    process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(holds: Any) -> None:
    limit = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.slow
def test_two_workers_of_dask_measure_two_devices_and_a_killed_one_loses_nothing(
    tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed", reason="needs the extra fleet")
    from ofa_profiler.cli.profile import main

    monkeypatch.setenv("OFA_CACHE_DIR", cache)
    devices = ["--device", "lab:one", "--device", "lab:two", "--name", "one", "--name", "two"]
    options = [*devices, "--resolution", "24", "--no-calibration"]
    assert main([*options, "--out", str(tmp_path / "direct")]) == 0
    (tmp_path / "worker.py").write_text(WORKER)
    (jobs := tmp_path / "jobs").mkdir()
    plan = tmp_path / "scheduler.json"

    def worker(name: str) -> Any:
        words = (
            "--scheduler-file",
            str(plan),
            "--resources",
            f"lab:{name}=1",
            "--preload",
            str(tmp_path / "worker.py"),
        )
        return running("distributed.cli.dask_worker", *words, "--nthreads", "1", "--no-nanny", "--no-dashboard",
                       LAB=str(jobs))  # fmt: skip

    scheduler = running(
        "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(plan)
    )
    with ExitStack() as running_here:
        running_here.enter_context(scheduler)
        until(lambda: plan.exists() and plan.read_text().endswith("}"))
        running_here.enter_context(worker("two"))
        address = json.loads(plan.read_text())["address"]
        with worker("one") as first:
            from distributed import Client

            with Client(address, timeout=30) as client:
                client.wait_for_workers(2, timeout=60)
            command = [sys.executable, "-c", PROGRAM, *options, "--out", str(tmp_path / "fleet"), "--dask", address]
            host = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            until(lambda: sum(path.name.startswith("one-") for path in jobs.iterdir()) == 2)
            first.kill()
            first.wait()
        with worker("one"):
            assert host.wait(100) == 0, host.communicate()
    for name in ("one", "two"):
        tables = [(tmp_path / run / f"{name}.csv").read_text() for run in ("direct", "fleet")]
        assert tables[0] == tables[1], name
        journal = (tmp_path / "fleet" / f"{name}.jsonl").read_text().splitlines()
        visits = [line for line in journal if '"type":"visit"' in line]
        assert len(visits) == len(set(visits))
        begun = [path.name.split("-")[1] for path in jobs.iterdir() if path.name.startswith(f"{name}-")]
        assert len(begun) - len(set(begun)) == (name == "one")  # only the job that was killed is repeated


#: `ofa-profile` where devices `lab:NAME` are known by name.
PROGRAM = """
import sys
from ofa_profiler.cli.profile import main
from ofa_profiler.devices import DeviceKind, FakeDevice, elsewhere, register_device_kind
register_device_kind(DeviceKind("lab", lambda spec, _: FakeDevice(spec=spec), "lab:NAME"))
elsewhere._VISITS = 100
sys.exit(main(sys.argv[1:]))
"""
