"""What the agent does when the device changes its speed while it is measured."""

from __future__ import annotations

import contextlib
import json
import random
import statistics
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from support.agents import start
from support.kits import QUICK, bytes_model, make_kit, records, stub_runtime, visits

from device_agents.ofa_agent import supervisor, visiting
from device_agents.ofa_agent.errors import HostGone
from device_agents.ofa_agent.machine import Machine
from device_agents.ofa_agent.progress import Progress
from device_agents.ofa_agent.reference import Reference
from ofa_profiler.measuring.table_from_journal import table_metadata
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.records import Run, read_record
from ofa_profiler.protocol.replay import Replay
from ofa_profiler.protocol.settings import Settings

SETTINGS = Settings(min_rounds=3, max_rounds=6, visit_s=0.1, time_limit_s=None, target_half_width=0.02)


class Device(Machine):
    """A device whose clock is ours: `speed(seconds)` is how much longer everything takes just then."""

    def __init__(self, speed: Callable[[float], float], hot: Callable[[float], bool] = lambda now: False) -> None:
        self.speed = speed
        self.hot = hot
        self.now = 0.0
        self.waited_s = 0.0
        self.stop_after = float("inf")

    def monotonic(self) -> float:
        return self.now

    def describe(self) -> dict[str, Any]:
        return {"type": "device", "time": "2026-01-01", "model": "simulated", "cores_allowed": None, "max_mhz": None}

    def state(self, cores_used: object) -> dict[str, Any]:
        return {"temperature_c": None}

    def throttled(self) -> str | None:
        return "it is hot" if self.hot(self.now) else None

    def governor(self, core: int) -> None:
        return None

    def steady_clocks(self, cores_used: object) -> contextlib.AbstractContextManager[dict[int, str]]:
        return contextlib.nullcontext({})

    def core_count(self, device: object) -> None:
        return None

    def fastest_cores(self, device: object, count: int) -> None:
        return None


def costs(count: int) -> dict[str, int]:
    return {f"op {i}": 100_000 * (i + 2) for i in range(count)}


def simulate(device: Device, settings: Settings, ops: dict[str, int], lines: list[bytes]) -> Replay:
    """Run the agent's supervisor on the device, from where `lines` end, until all is measured or `stop_after`."""

    class Worker:
        def __init__(self, host: object) -> None:
            pass

        def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
            if "settings" in request:
                return {"pinned": False, "runtime": {"name": "simulated"}}
            if device.now > device.stop_after:
                raise HostGone
            device.now += request["visit_s"] / 2
            samples = [round(ops[request["key"]] * device.speed(device.now)) for _ in range(9)]
            device.now += request["visit_s"] / 2
            return {"load_ns": 1, "warmup_ns": 1, "warmup_runs": 1, "samples_ns": samples}

        def close(self) -> str:
            return ""

    def wait(timeout_s: float = 0.0, also: object = None) -> bool:
        device.now += timeout_s
        device.waited_s += timeout_s
        return False

    run = {
        "type": "run",
        "format": 1,
        "created": "2026-01-01",
        "settings": settings.to_json(),
        "about": {},
        "models": dict.fromkeys(ops, "0"),
    }
    kit = SimpleNamespace(
        run=run,
        models=dict.fromkeys(ops),
        request=lambda key: {"key": key},
        trials=[],
        profile=None,
        has_forms=False,
        has_encodings=False,
    )
    before = [json.loads(line) for line in lines or [json.dumps(run).encode()]]
    results = SimpleNamespace(
        forms=None,
        profile=None,
        measured=[record for record in before if record["type"] in ("visit", "reference")],
        append=before.append,
        tell=lambda record: None,
    )
    host = SimpleNamespace(check=wait, attached=True, repairs=False)
    with contextlib.suppress(HostGone):
        supervisor.Supervisor(kit, host, results, visiting.Visitor(host, Worker), device).run()
    lines[:] = [json.dumps(record).encode() for record in before]
    replay = Replay(Run.from_json(before[0]))
    for record in before[1:]:
        replay.add(read_record(record))
    return replay


@pytest.fixture
def run_on(monkeypatch):
    def run(device: Device, count: int = 120, lines: list[bytes] | None = None, **changes: Any) -> Replay:
        monkeypatch.setattr(supervisor, "time", device)
        monkeypatch.setattr(visiting, "time", device)
        return simulate(device, replace(SETTINGS, **changes), costs(count), [] if lines is None else lines)

    return run


def errors(log: Replay, count: int = 120) -> list[float]:
    """How far the table would be off, for each op."""
    truth = costs(count)
    return [abs(log.measurement(key).median_ms * 1e6 / cost - 1) for key, cost in truth.items()]


def test_a_steady_device_is_visited_once(run_on):
    log = run_on(Device(lambda now: 1.0))
    assert log.end.json["repeated"] == log.n_repeated == 0
    assert log.end.json["drifted"] == log.n_drifted == 0
    assert log.n_visits == 3 * 120
    assert log.n_references == 5 + 1 + 1  # the first ones, after 20 of 36 s, at the end
    assert max(errors(log)) < 1e-6
    metadata = table_metadata(log)
    assert metadata["sampling"].items() >= {"references": 7, "repeated": 0, "drifted": 0}.items()
    assert not any("reference" in note for note in metadata["device"]["uncontrolled"])


@pytest.mark.parametrize("slowdown", [1.05, 1.5, 0.8])
@pytest.mark.parametrize(("begin", "length"), [(5, 40), (30, 20), (25, 8), (34, 60)])
def test_what_was_measured_while_it_was_slow_is_measured_again(run_on, slowdown, begin, length):
    """... and not counted: whole rounds of it would otherwise be in the samples."""
    device = Device(lambda now: slowdown if begin <= now < begin + length else 1.0)
    log = run_on(device, reference_every_s=5.0)
    assert log.n_repeated > 0
    assert log.n_drifted == 0
    assert max(errors(log)) < 1e-6
    assert all(len(visits) >= 3 for visits in log.visits.values())
    slow = [visit for visits in log.visits.values() for visit in visits if visit.samples_ns[0] % 100_000]
    # What is slow between two looks that were not is all that can stay.
    assert len(slow) <= 5.0 / 0.1
    assert log.n_visits - log.n_repeated == sum(map(len, log.visits.values()))


def test_less_than_the_tolerance_is_no_drift(run_on):
    log = run_on(Device(lambda now: 1.02 if now > 25 else 1.0))
    assert log.n_repeated == log.n_drifted == 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.4])
def test_noise_is_not_drift(run_on, noise, seed):
    """Visits that vary by themselves are seldom visited again, and never without end."""
    generator = random.Random(seed)
    log = run_on(Device(lambda now: generator.lognormvariate(0, noise)), max_rounds=10, reference_every_s=5.0)
    assert log.end is not None
    assert log.n_repeated <= 0.15 * log.n_visits


@pytest.mark.parametrize(
    "speed",
    [
        lambda now: 1.0 + now / 100,
        lambda now: 1.5 if now % 60 < 25 else 1.0,
        lambda now: 2.0 ** (int(now / 7) % 5),
        lambda now: 1.5 if now > 30 else 1.0,
    ],
    ids=["slower and slower", "on and off", "many speeds", "for good"],
)
def test_a_device_that_never_settles_comes_to_an_end(run_on, speed):
    log = run_on(Device(speed), reference_every_s=5.0)
    assert log.end is not None
    assert all(len(visits) >= 3 for visits in log.visits.values())
    interval = 5.0 / 0.1 + 1
    assert log.n_repeated <= 3 * 120 + interval
    assert (log.end.json["repeated"], log.end.json["drifted"]) == (log.n_repeated, log.n_drifted)


def test_drift_that_lasts_is_said(run_on):
    log = run_on(Device(lambda now: 2.0 ** (int(now / 7) % 5)), reference_every_s=5.0)
    assert log.n_drifted > 0
    metadata = table_metadata(log)
    assert metadata["sampling"]["drifted"] == log.n_drifted
    assert metadata["sampling"]["repeated"] == log.n_repeated
    assert any(
        f"{log.n_drifted} of {log.n_visits} visits count though" in n for n in metadata["device"]["uncontrolled"]
    )


def test_the_time_limit_holds_while_it_drifts(run_on):
    device = Device(lambda now: 2.0 ** (int(now / 7) % 5))
    log = run_on(device, reference_every_s=5.0, time_limit_s=60.0, target_half_width=1e-9)
    assert all(log.visits.values())
    assert log.used_s <= 60.0 + 120 * 0.1 * 3 + 10


@pytest.mark.parametrize(("limit_s", "at_most_s"), [(None, 60.0), (2000.0, 60.0), (60.0, 6.0)])
def test_it_waits_for_a_tenth_of_the_time_limit_and_a_minute_at_most(run_on, limit_s, at_most_s):
    device = Device(lambda now: 1.0 if now < 20 else 1.5 + now / 1000)
    run_on(device, reference_every_s=5.0, time_limit_s=limit_s)
    assert device.waited_s == pytest.approx(at_most_s)


@pytest.mark.parametrize("stop_after", [3.0, 13.0, 26.0, 31.0, 37.0, 45.0])
def test_goes_on_in_the_middle_of_drift(run_on, stop_after):
    """The same result as without the interruption, and nothing is visited that counts already."""
    device = Device(lambda now: 1.5 if 25 <= now < 45 else 1.0)
    lines: list[bytes] = []
    device.stop_after = stop_after
    before = run_on(device, lines=lines, reference_every_s=5.0)
    device.stop_after = float("inf")
    log = run_on(device, lines=lines, reference_every_s=5.0)
    assert before.end is None
    assert log.end is not None
    assert max(errors(log)) < 1e-6
    assert [len(visits) for visits in log.visits.values()] == [3] * 120 or log.n_repeated > 0
    assert log.n_visits == sum(map(len, log.visits.values())) + log.n_repeated
    keys = {json.loads(line)["key"] for line in lines if json.loads(line)["type"] == "reference"}
    assert len(keys) == 1


def test_a_finished_measurement_is_not_looked_at_again(run_on):
    device, lines = Device(lambda now: 1.0), []
    done = run_on(device, lines=lines)
    again = run_on(device, lines=lines)
    assert (again.n_visits, again.n_references) == (done.n_visits, done.n_references)


def test_the_reference_is_near_a_millisecond():
    progress = {key: Progress(SETTINGS.to_json()) for key in ("a", "b", "c", "d")}
    reference = Reference(SETTINGS.to_json())
    for key, cost in {"a": 10_000, "b": 1_300_000, "c": 40_000_000}.items():
        assert reference.choose(progress) is None
        progress[key].add({"status": "ok", "samples_ns": [cost] * 9})
    progress["d"].add({"status": "failed"})
    assert reference.choose(progress) == "b"
    reference.add({"key": "b", "status": "failed", "seconds": 1.0})
    assert reference.choose(progress) == "c"  # 40 times as long; "a" takes a hundredth
    progress["a"].failed = progress["c"].failed = True
    assert reference.choose(progress) is None


def test_a_reference_that_crashes_is_replaced():
    """What was visited before is judged by nobody; the measurement itself goes on."""
    reference = Reference(SETTINGS.to_json())
    progress = {key: Progress(SETTINGS.to_json()) for key in ("a", "b")}
    for model in progress.values():
        model.add({"status": "ok", "samples_ns": [1_000_000]})
    assert reference.choose(progress) == "a"
    reference.add_visit({"key": "b", "status": "ok", "seconds": 2.0})
    assert reference.add({"key": "a", "status": "failed", "seconds": 1.0}) == []
    assert reference.key is None
    assert reference.since == ["b"]
    assert reference.choose(progress) == "b"


@pytest.mark.slow
def test_a_real_agent_measures_again_what_was_slow(tmp_path):
    """The whole agent, with a runtime that takes three times as long from the 50th visit on, until it has noticed."""
    results = tmp_path / "kit" / "results.jsonl"
    env = {**stub_runtime(tmp_path / "stub"), "STUB_SLOW": str(results), "STUB_RUN_S": "0.002"}
    models = [bytes_model(tmp_path, f"run {i}", f"run {i}".encode()) for i in range(12)]
    settings = replace(
        QUICK,
        min_rounds=12,
        max_rounds=12,
        visit_s=0.01,
        max_visit_samples=50,
        reference_every_s=0.4,
        drift_tolerance=0.6,
    )
    kit = make_kit(tmp_path / "kit", models, settings)
    file = kit / "ofa_agent" / "supervisor.py"
    source = file.read_text()
    assert "SETTLING_STEP_S = 5.0" in source
    file.write_text(source.replace("SETTLING_STEP_S = 5.0", "SETTLING_STEP_S = 0.2"))

    with start(kit, env=env) as process:
        text = process.stdout.read().decode()
    log, _ = read_journal(results)
    assert records(text)[-1]["repeated"] == log.n_repeated > 0
    assert len(visits(text)["run 0"]) >= 12
    assert all(len(measured) == 12 for measured in log.visits.values())
    medians = {key: measurement.median_ms for key, measurement in log.measurements().items()}
    assert max(medians.values()) < 1.6 * statistics.median(medians.values())


# --- heat --------------------------------------------------------------------------------------------------


def test_it_pauses_while_the_device_is_hot(run_on):
    device = Device(lambda now: 1.0, hot=lambda now: 10 <= now < 40)
    log = run_on(device)
    assert 30 <= device.waited_s <= 35
    assert log.end.measured_hot is None


def test_a_device_that_stays_hot_is_measured_hot(run_on):
    device = Device(lambda now: 1.0, hot=lambda now: now >= 10)
    log = run_on(device)
    assert device.waited_s == supervisor.COOL_DOWN_S
    assert log.end.measured_hot == "it is hot"
