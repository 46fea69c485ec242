"""`--worker-command`: the agent here measures another machine, which a program of somebody else reaches."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.kits import QUICK, bytes_model, make_kit, records, run_agent, visits

from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.target import Target

#: A model says what happens: its bytes are words of Python. `asked` counts what was asked for.
WORKER = """
import collections, json, os, pathlib, sys, time

def respond(**answer):
    print(json.dumps(answer), flush=True)

asked = collections.Counter()
with open(sys.argv[1], "a") as log:
    for line in sys.stdin:
        request = json.loads(line)
        log.write(line)
        log.flush()
        what = request.get("ask", "start" if "settings" in request else "visit")
        asked[what] += 1
        if what == "describe":
            respond(type="device", time="2026-01-01", model="far", soc="chip", cores_allowed=[0, 4, 7],
                    max_mhz={"0": 1800, "4": 2400.0, "7": 2400}, governors={"0": "powersave", "7": "schedutil"})
        elif what == "state":
            respond(mhz={str(core): 2400.0 for core in request["cores"] or []}, temperature_c=40.5)
        elif what == "heat":
            respond(temperature_c=40.5, thermal_status=3 if asked[what] in HOT else 0, cooling=[["gpu", 9]])
        elif what == "start":
            respond(waiting="the models travel")
            respond(ready=True, runtime={"name": "theirs", "version": "1"}, pinned=True,
                    device={"fixed_performance_mode": True, "stay_awake": False})
        else:
            respond(alive=True)
            exec(pathlib.Path(request["path"]).read_text())
"""
OK = (
    "respond(samples_ns=[1000000 + asked[what] % 1000], runs=9, statistics={'p5': 7}, "
    "load_ns=1, warmup_ns=5, warmup_runs=1)"
)


@pytest.fixture
def worker(tmp_path: Path):
    """The option that starts the worker, and all that it was asked."""

    def command(hot: str = "()") -> list[str]:
        path = tmp_path / "worker.py"
        path.write_text(f"HOT = {hot}\n{WORKER}")
        return ["--worker-command", json.dumps([sys.executable, str(path), str(tmp_path / "asked")])]

    return command


def asked(tmp_path: Path) -> list[dict[str, Any]]:
    return records((tmp_path / "asked").read_text())


def kit_of(tmp_path: Path, *models: str, **settings: Any) -> Path:
    files = [bytes_model(tmp_path, f"op {n}", f"{text}  # {n}".encode()) for n, text in enumerate(models)]
    return make_kit(tmp_path / "kit", files, replace(QUICK, target=Target("what is there"), **settings))


def test_describe_is_what_the_worker_tells(tmp_path, worker):
    done = run_agent(kit_of(tmp_path, OK), "--describe", *worker())
    (record,) = records(done.stdout)
    assert (record["type"], record["model"]) == ("device", "far")
    assert "governors" not in record


def test_the_machine_is_the_workers(tmp_path, worker):
    kit = kit_of(tmp_path, OK, "respond(error='no kernel', cause='timeout')", "respond(error='no kernel')")
    done = run_agent(kit, *worker())
    assert done.returncode == 0, done.stderr
    _, *waiting, device = [record for record in records(done.stdout) if record["type"] in ("run", "waiting", "device")]
    assert [record["why"] for record in waiting] == ["the models travel"]
    assert device["model"] == "far"
    assert device["cores_used"] == [7]
    assert (device["governor"], device["governor_found"]) == ("schedutil", "schedutil")
    assert (device["fixed_performance_mode"], device["stay_awake"]) == (True, False)
    assert device["before"] == {"mhz": {"7": 2400.0}, "temperature_c": 40.5, "throttled": None}
    assert device["nice"] is None
    assert device["uncontrolled"] == []
    found = visits(done.stdout)
    assert found["op 0"][0]["statistics"] == {"p5": 7}
    assert [(found[key][0]["status"], found[key][0]["cause"]) for key in ("op 1", "op 2")] == [
        ("failed", "timeout"),
        ("failed", "exception"),
    ]
    (start,) = (request for request in asked(tmp_path) if "settings" in request)
    assert start["cores"] == [7]
    first, second = [request for request in asked(tmp_path) if request.get("key") == "op 0"][:2]
    assert first["last_median_ns"] is None
    assert second["last_median_ns"] == found["op 0"][0]["samples_ns"][0]


def test_visits_that_are_summaries_are_judged_by_their_spread(tmp_path, worker):
    kit = kit_of(tmp_path, OK, max_rounds=9)
    done = run_agent(kit, *worker())
    first, second = visits(done.stdout)["op 0"]
    assert first["half_width"] is None
    assert 0 < second["half_width"] < 1e-3  # six samples would be needed otherwise
    log, _ = read_journal(kit / "results.jsonl")
    assert log.measurement("op 0").half_width == second["half_width"]


def test_it_resumes_and_looks_at_the_reference(tmp_path, worker):
    kit = kit_of(tmp_path, *[OK] * 10, reference_every_s=0.001, max_rounds=4, target_half_width=1e-12)
    command = worker()
    whole = run_agent(kit, *command).stdout.splitlines(keepends=True)
    assert sum('"reference"' in line for line in whole) > 5
    results = kit / "results.jsonl"
    kept = results.read_text().splitlines(keepends=True)[:30]
    results.write_text("".join(kept))
    done = run_agent(kit, *command)
    assert done.returncode == 0, done.stderr
    log, _ = read_journal(results)
    assert {len(visited) for visited in log.visits.values()} == {4}


def test_it_pauses_while_that_machine_is_hot(tmp_path, worker):
    kit = kit_of(tmp_path, OK)
    file = kit / "ofa_agent" / "supervisor.py"
    source = file.read_text()
    assert "COOLING_STEP_S = 5.0" in source
    file.write_text(source.replace("COOLING_STEP_S = 5.0", "COOLING_STEP_S = 0.1"))
    done = run_agent(kit, *worker(hot="(2, 3)"))  # the first answer is for the record of the device
    assert done.returncode == 0, done.stderr
    (why,) = {record["why"] for record in records(done.stdout) if "cools" in record.get("why", "")}
    assert why == "the device cools down: Android reports thermal status 3"
    assert records(done.stdout)[-1]["measured_hot"] is None


@pytest.mark.parametrize(
    ("answer", "fatal"),
    [
        (
            "respond(fatal='the cable was pulled', usage=False, transient=True)",
            {"error": "the cable was pulled", "usage": False, "transient": True},
        ),
        (
            "respond(fatal='no such delegate', usage=True)",
            {"error": "no such delegate", "usage": True, "transient": False},
        ),
    ],
)
def test_a_link_that_is_lost_ends_the_agent(tmp_path, worker, answer, fatal):
    done = run_agent(kit_of(tmp_path, answer), *worker())
    assert done.returncode == 1
    assert records(done.stdout)[-1] == {"type": "fatal", **fatal}
    assert visits(done.stdout) == {}


def test_a_worker_that_crashes_is_started_again(tmp_path, worker):
    done = run_agent(kit_of(tmp_path, OK, "os._exit(3)", OK), *worker())
    assert done.returncode == 0, done.stderr
    found = visits(done.stdout)
    assert found["op 1"][0]["error"] == "the worker process ended with exit code 3"
    assert len(found["op 0"]) == len(found["op 2"]) == QUICK.min_rounds


def test_a_worker_that_dies_when_it_is_asked_is_worth_another_try(tmp_path):
    command = ["--worker-command", json.dumps([sys.executable, "-c", "import sys; sys.exit(9)"])]
    done = run_agent(kit_of(tmp_path, OK), *command)
    fatal = records(done.stdout)[-1]
    assert (fatal["type"], fatal["transient"]) == ("fatal", True)
    assert "exit code 9" in fatal["error"]


@pytest.mark.parametrize("words", ["", "ls", "[]", "[1]", '"ls"'])
def test_what_is_no_command_is_refused(tmp_path, words):
    done = run_agent(kit_of(tmp_path, OK), "--worker-command", words)
    assert done.returncode == 2
    assert "is not a command like" in done.stderr


@pytest.mark.parametrize(("cores", "words"), [("3", "this device allows [0, 4, 7]"), ("0", "names 1 cores")])
def test_cores_that_it_has_not(tmp_path, worker, cores, words):
    done = run_agent(kit_of(tmp_path, OK, threads=2), "--cores", cores, *worker())
    assert records(done.stdout)[-1]["usage"] is True
    assert words in records(done.stdout)[-1]["error"]
