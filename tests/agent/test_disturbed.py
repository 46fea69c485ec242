"""Other programs on the core: the agent counts how long it waited, and repeats the visits that this changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.kits import QUICK, SHAPE, bytes_model, make_kit, records, run_agent, visits
from support.paths import ROOT

from device_agents.ofa_agent.core_use import CoreUse, is_disturbed
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.target import Target

#: One core for itself, as long as it is not stopped. Agents of root have the highest priority, so it takes that too.
HOG = """
import os
try:
    os.setpriority(os.PRIO_PROCESS, 0, -20)
except OSError:
    pass
os.sched_setaffinity(0, [{core}])
print("runs", flush=True)
while True:
    pass
"""
#: A worker of another machine, which tells what its kernel counted: `DISTURBED(n)` decides for its n-th visit.
WORKER = """
import json, random, sys, time
n = 0
for line in sys.stdin:
    request = json.loads(line)
    ask = request.get("ask", "start" if "settings" in request else "visit")
    if ask == "describe":
        answer = {"type": "device", "time": "2026-01-01", "model": "far", "cores_allowed": [0], "max_mhz": {"0": 1000}}
    elif ask in ("state", "heat"):
        answer = {"mhz": {}, "temperature_c": 40.5, "thermal_status": 0, "cooling": []}
    elif ask == "start":
        answer = {"ready": True, "runtime": {"name": "theirs", "version": "1"}, "pinned": True}
    else:
        waited = 9_000_000 if eval(sys.argv[1])(n) else 0
        n += 1
        time.sleep(0.005)
        ns = 100_000_000 + random.randrange(100_000)
        answer = {"samples_ns": [ns] * 9, "load_ns": 1, "warmup_ns": 5, "warmup_runs": 1,
                  "wall_ns": 20_000_000, "cpu_ns": 11_000_000, "waited_ns": waited, "involuntary": waited // 1_000_000}
    print(json.dumps(answer), flush=True)
"""
N_MODELS = 8


def far_kit(tmp_path: Path, **settings: Any) -> Path:
    files = [bytes_model(tmp_path, f"op {n}", f"model {n}".encode()) for n in range(N_MODELS)]
    return make_kit(tmp_path / "kit", files, replace(QUICK, target=Target("theirs"), **settings))


def worker(tmp_path: Path, disturbed: str) -> list[str]:
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    return ["--worker-command", json.dumps([sys.executable, str(path), f"lambda n: {disturbed}"])]


@pytest.mark.parametrize(
    ("waited_ns", "involuntary", "samples", "disturbed"),
    [
        (6, 2, 10, True),  # an op of several milliseconds: another program ran in the middle of a fifth of the samples
        (4, 2, 10, False),  # it waited for less than 5% of the time
        (50, 8, 400, False),  # a short op: half the core is gone, but at most 2% of the samples are slower
        (0, 0, 10, False),
    ],
)
def test_when_a_visit_is_disturbed(waited_ns: int, involuntary: int, samples: int, disturbed: bool) -> None:
    record = {"wall_ns": 100, "waited_ns": waited_ns, "involuntary": involuntary, "samples_ns": [1] * samples}
    assert is_disturbed(record, 1) == disturbed
    assert not is_disturbed({"samples_ns": [1]}, 1)  # this system does not count


def test_a_disturbed_visit_is_repeated_after_the_others(tmp_path: Path) -> None:
    done = run_agent(far_kit(tmp_path, visit_s=1.0), *worker(tmp_path, "n in (1, 2)"))
    assert done.returncode == 0, done.stderr
    found = [record for record in records(done.stdout) if record["type"] in ("visit", "disturbed")]
    again = [record["key"] for record in found if record["type"] == "disturbed"]
    assert again == [found[1]["key"], found[2]["key"]]
    assert {record["key"] for record in found[N_MODELS : N_MODELS + 2]} == set(again)
    assert {record["round"] for record in found[: N_MODELS + 2]} == {0}
    log, _ = read_journal(tmp_path / "kit" / "results.jsonl")
    assert (log.n_disturbed, log.n_visits) == (2, N_MODELS * QUICK.min_rounds)
    assert {len(kept) for kept in log.visits.values()} == {QUICK.min_rounds}
    assert not any(visit.is_disturbed for kept in log.visits.values() for visit in kept)
    assert log.used_s == pytest.approx(sum(record["seconds"] for record in found))


@pytest.mark.parametrize("kept_lines", [None, 8, 12, 25])
def test_a_machine_that_is_always_busy_is_measured_all_the_same(tmp_path: Path, kept_lines: int | None) -> None:
    kit = far_kit(tmp_path, visit_s=0.02, max_rounds=4, target_half_width=1e-12)
    command = worker(tmp_path, "True")
    results = kit / "results.jsonl"
    assert run_agent(kit, *command).returncode == 0
    if kept_lines is not None:  # it was killed, and goes on
        results.write_text("".join(results.read_text().splitlines(keepends=True)[:kept_lines]))
        assert run_agent(kit, *command).returncode == 0
    log, _ = read_journal(results)
    assert {len(kept) for kept in log.visits.values()} == {4}
    assert log.n_disturbed > 0
    assert sum(visit.is_disturbed for kept in log.visits.values() for visit in kept) == 4 * N_MODELS
    assert log.others_share == pytest.approx(0.45)
    repeated_s = sum(r["seconds"] for r in records(results.read_text()) if r["type"] == "disturbed")
    assert repeated_s <= 0.2 * max(log.used_s, N_MODELS * QUICK.min_rounds * 0.02)


@pytest.fixture
def busy_core() -> Iterator[int]:
    """A core on which another program runs."""
    if not hasattr(os, "sched_getaffinity") or not Path("/proc/self/schedstat").exists():
        pytest.skip("needs a kernel that counts how long a thread waits")
    core = max(os.sched_getaffinity(0))
    hog = subprocess.Popen([sys.executable, "-c", HOG.format(core=core)], stdout=subprocess.PIPE)
    assert hog.stdout is not None
    assert hog.stdout.readline() == b"runs\n"
    yield core
    hog.kill()
    hog.wait()
    hog.stdout.close()


def slow_model(folder: Path) -> Any:
    """A model of several milliseconds: one large convolution, several times."""
    channels = 192
    first, again = (np.full((channels, n, 3, 3), 1e-4, np.float32) for n in (SHAPE[1], channels))
    names = ["input", *(f"x{i}" for i in range(9)), "output"]
    nodes = [
        helper.make_node("Conv", [before, "again" if i else "first"], [after], pads=[1] * 4)
        for i, (before, after) in enumerate(pairwise(names))
    ]
    shapes = (SHAPE, (1, channels, *SHAPE[2:]))
    tensors = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(("input", "output"), shapes, strict=True)
    ]
    weights = [numpy_helper.from_array(first, "first"), numpy_helper.from_array(again, "again")]
    graph = helper.make_graph(nodes, "slow", tensors[:1], tensors[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes_model(folder, "slow", model.SerializeToString())


def test_a_program_on_the_measuring_core_is_noticed(tmp_path: Path, busy_core: int) -> None:
    kit = make_kit(tmp_path / "kit", [slow_model(tmp_path)], replace(QUICK, min_rounds=4, max_rounds=8, visit_s=0.1))
    done = run_agent(kit, "--cores", str(busy_core))
    assert done.returncode == 0, done.stderr
    log, _ = read_journal(kit / "results.jsonl")
    assert log.others_share is not None
    assert log.others_share > 0.2
    (kept,) = visits(done.stdout).values()
    repeated = [record for record in records(done.stdout) if record["type"] == "disturbed"]
    assert repeated or any(visit.get("disturbed") for visit in kept)
    assert all(visit["involuntary"] > 0 for visit in kept if visit.get("disturbed"))


def test_sleeping_is_not_waiting_for_a_core() -> None:
    use = CoreUse(threads=1)
    time.sleep(0.05)
    fields = use.fields()
    assert fields["wall_ns"] > 45e6
    assert fields["cpu_ns"] < 25e6
    assert fields.get("waited_ns", 0) < 25e6


#: Two threads of a process that share a core with each other, and with nobody else: both compute, or both compute in
#: turn and wait for each other. `summed_ns` is what the kernel counts.
TWO_THREADS = """
import hashlib, json, os, sys, threading, time
sys.path.insert(0, {root!r})
from device_agents.ofa_agent.cores import raise_priority
from device_agents.ofa_agent.core_use import CoreUse, is_disturbed, waiting_ns
raise_priority()
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
ends, data = time.monotonic() + 0.5, bytes(1 << 20)  # large enough for hashlib to release the interpreter

def compute(*_):
    while time.monotonic() < ends:
        hashlib.sha256(data).digest()

def compute_in_turn(mine, other):
    while time.monotonic() < ends:
        mine.acquire()
        hashlib.sha256(data).digest()
        other.release()

turns = threading.Semaphore(1), threading.Semaphore(0)
threads = [threading.Thread(target={target}, args=order) for order in (turns, turns[::-1])]
use = CoreUse(threads=2)
for thread in threads:
    thread.start()
time.sleep(0.4)
record = dict(use.fields(), samples_ns=[1] * 10, summed_ns=sum(waiting_ns().values()))
for thread in threads:
    thread.join()
print(json.dumps(dict(record, disturbed=is_disturbed(record, 2))))
"""


@pytest.mark.parametrize("target", ["compute", "compute_in_turn"])
def test_threads_that_wait_for_each_other_are_no_other_program(target: str) -> None:
    if not Path("/proc/self/schedstat").exists() or os.geteuid() != 0:
        pytest.skip("needs a kernel that counts how long a thread waits, and the right to keep others off the core")
    script = TWO_THREADS.format(root=str(ROOT), target=target)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, start_new_session=True)  # as agents are started
    record = json.loads(done.stdout)
    assert record["cpu_ns"] > 0.85 * record["wall_ns"]  # there were no others
    if target == "compute":
        assert record["summed_ns"] > 0.5 * record["wall_ns"]  # but the threads waited
    assert record["waited_ns"] <= max(0, record["wall_ns"] - record["cpu_ns"])  # the clocks differ a little
    assert record["waited_ns"] < 0.15 * record["wall_ns"]


def test_a_core_that_only_one_of_two_threads_lacks() -> None:
    """Another program has 8% of one of two cores: an average thread waits for 4%, but the op for 8%."""
    record = {"wall_ns": 1000, "waited_ns": 40, "involuntary": 5, "samples_ns": [1] * 10}
    assert is_disturbed(record, 2)
    assert not is_disturbed(record, 1)
