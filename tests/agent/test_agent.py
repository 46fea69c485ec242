"""The agent alone: run by hand on kits, with the real runtime and with one that misbehaves."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.agents import is_alive, start, wait_for
from support.kits import QUICK, bytes_model, conv_model, make_kit, records, run_agent, stub_runtime, visits

from device_agents.ofa_agent import clocks
from device_agents.ofa_agent.medians import half_width
from device_agents.ofa_agent.visiting import GIVE_UP_AFTER
from device_agents.ofa_agent.workers import CAN_FORK
from ofa_profiler.networks.tensors import TensorSpec
from ofa_profiler.protocol.target import Target

HOW = ["", "--no-fork"]  # both ways in which a worker comes to life


def interpreters() -> list[str]:
    """Every Python from 3.7 on that pyenv has here, and this one."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {sys.version_info[:2]: sys.executable}
    for path in sorted(root.glob("3.*/bin/python")):
        version = tuple(int(part) for part in path.parts[-3].split(".")[:2])
        if version >= (3, 7):
            found.setdefault(version, str(path))
    return [found[version] for version in sorted(found)]


# --- the real runtime ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOW)
def test_measures_every_model_in_rounds(tmp_path, how):
    models = [conv_model(tmp_path, f"conv{k}", k) for k in (1, 3, 5)]
    kit = make_kit(tmp_path / "kit", models)
    done = run_agent(kit, *filter(None, [how]))
    assert done.returncode == 0, done.stderr
    assert done.stdout == (kit / "results.jsonl").read_text()

    run, device, *rest, end = records(done.stdout)
    assert run["models"] == {model.key: model.sha256 for model in models}
    assert device["runtime"]["name"] == "onnxruntime"
    assert device["runtime"]["provider"] == "CPUExecutionProvider"
    assert len(device["cores_used"]) == 1
    assert device["nice"] == (-20 if os.geteuid() == 0 else os.getpriority(os.PRIO_PROCESS, 0))
    assert end["type"] == "end"
    found = visits(done.stdout)
    assert found.keys() == run["models"].keys()
    for measured in found.values():
        assert [visit["round"] for visit in measured] == list(range(len(measured)))
        assert QUICK.min_rounds <= len(measured) <= QUICK.max_rounds
        for visit in measured:
            assert 5 <= len(visit["samples_ns"]) <= 20
            assert all(0 < sample < 1e9 for sample in visit["samples_ns"])
    # Interleaved: nobody is visited for the second time before all have been visited once.
    rounds = [visit["round"] for visit in rest]
    assert rounds == sorted(rounds)


def test_an_error_travels_as_data(tmp_path):
    good, garbage = conv_model(tmp_path, "good"), bytes_model(tmp_path, "garbage", b"no model")
    found = visits(run_agent(make_kit(tmp_path / "kit", [good, garbage])).stdout)
    assert found["good"][0]["status"] == "ok"
    (failed,) = found["garbage"]  # and it is not tried again
    assert failed["status"] == "failed"
    assert failed["cause"] == "exception"
    assert "InvalidProtobuf" in failed["error"] or "INVALID_PROTOBUF" in failed["error"]


def test_a_damaged_model_is_not_run(tmp_path):
    models = [conv_model(tmp_path, "good"), conv_model(tmp_path, "bad", 5)]
    kit = make_kit(tmp_path / "kit", models)
    file = kit / "models" / models[1].path.name
    data = file.read_bytes()
    file.unlink()  # it is a link to the original
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    found = visits(run_agent(kit).stdout)
    assert found["good"][0]["status"] == "ok"
    assert "SHA-256" in found["bad"][0]["error"]


def test_a_model_with_another_input_is_refused(tmp_path):
    model = replace(conv_model(tmp_path, "conv"), inputs=(TensorSpec("input", "float32", (2, 4, 8, 8)),))
    (visit,) = visits(run_agent(make_kit(tmp_path / "kit", [model])).stdout)["conv"]
    assert "[1, 4, 8, 8]" in visit["error"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"provider": "CUDAExecutionProvider"}, "no provider"),
        ({"threads": 1000}, "cores"),
        ({"target": Target("x")}, "runtime"),
    ],
)
def test_what_the_device_cannot_do_is_one_fatal_record(tmp_path, setting, words):
    kit = make_kit(tmp_path / "kit", [conv_model(tmp_path, "conv")], replace(QUICK, **setting))
    done = run_agent(kit)
    assert done.returncode == 1
    fatal = records(done.stdout)[-1]
    assert fatal["type"] == "fatal"
    assert fatal["usage"] is True
    assert words in fatal["error"]
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_telemetry_is_off_before_the_runtime_is_imported(tmp_path):
    stub = stub_runtime(tmp_path / "stub")
    source = Path(stub["PYTHONPATH"]) / "onnxruntime.py"
    source.write_text("import os\nassert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n" + source.read_text())
    environment = {**stub, "ORT_DISABLE_TELEMETRY": ""}
    done = run_agent(make_kit(tmp_path / "kit", [bytes_model(tmp_path, "a", b"run")]), env=environment)
    assert done.returncode == 0, done.stderr


# --- a runtime that misbehaves -------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOW)
def test_a_crash_or_a_hang_costs_one_model_only(tmp_path, how):
    acts = ["run a", "crash", "run b", "hang", "kill", "exit", "raise", "print", "run c"]
    models = [bytes_model(tmp_path, act, act.encode()) for act in acts]
    kit = make_kit(tmp_path / "kit", models, replace(QUICK, op_timeout_s=1.0))
    done = run_agent(kit, *filter(None, [how]), env=stub_runtime(tmp_path / "stub"))
    assert done.returncode == 0, done.stderr
    found = visits(done.stdout)
    for act in ("run a", "run b", "run c", "print"):
        assert len(found[act]) >= QUICK.min_rounds
        assert all(visit["status"] == "ok" for visit in found[act])
    causes = {
        act: (found[act][0]["cause"], found[act][0]["error"]) for act in ("crash", "hang", "kill", "exit", "raise")
    }
    assert causes["crash"][0] == "crash"
    assert "SIGSEGV" in causes["crash"][1]
    assert causes["kill"][0] == "crash"
    assert "SIGKILL" in causes["kill"][1]
    assert causes["exit"] == ("crash", "the worker process ended with exit code 3")
    assert causes["hang"] == ("timeout", "no answer within 1 s")
    assert causes["raise"] == ("exception", "RuntimeError: no kernel for this")
    assert "native noise" in done.stderr


def test_a_broken_runtime_is_given_up(tmp_path):
    models = [bytes_model(tmp_path, f"crash {i}", f"crash {i}".encode()) for i in range(GIVE_UP_AFTER + 3)]
    done = run_agent(make_kit(tmp_path / "kit", models), env=stub_runtime(tmp_path / "stub"))
    assert done.returncode == 1
    assert len(visits(done.stdout)) == GIVE_UP_AFTER
    assert "in a row" in records(done.stdout)[-1]["error"]


def test_a_dropped_provider_is_an_error(tmp_path):
    settings = replace(QUICK, provider="DroppedExecutionProvider")
    kit = make_kit(tmp_path / "kit", [bytes_model(tmp_path, "a", b"run")], settings)
    done = run_agent(kit, env=stub_runtime(tmp_path / "stub"))
    assert done.returncode == 1
    assert "cannot load the libraries" in records(done.stdout)[-1]["error"]


@pytest.mark.parametrize(
    "python", interpreters(), ids=lambda path: Path(path).parts[-3] if "versions" in path else "this"
)
def test_every_python_from_3_7_on(tmp_path, python):
    models = [bytes_model(tmp_path, act, act.encode()) for act in ("run a", "crash", "run b")]
    for how in HOW:
        kit = make_kit(tmp_path / f"kit{how}", models)
        done = run_agent(kit, *filter(None, [how]), python=python, env=stub_runtime(tmp_path / "stub"))
        assert done.returncode == 0, done.stderr
        assert {key: v[-1]["status"] for key, v in visits(done.stdout).items()} == {
            "run a": "ok",
            "crash": "failed",
            "run b": "ok",
        }


# --- going on ------------------------------------------------------------------------------------------


def test_goes_on_where_the_results_end(tmp_path):
    models = [conv_model(tmp_path, f"conv{k}", k) for k in (1, 3, 5)]
    kit = make_kit(tmp_path / "kit", models)
    results = kit / "results.jsonl"
    whole = run_agent(kit).stdout.splitlines(keepends=True)
    first = "".join(whole[:4])  # run, device, two visits
    results.write_text(first + whole[4][:30])  # ... and a third that a power cut tore
    done = run_agent(kit)
    assert done.returncode == 0, done.stderr
    assert done.stdout == results.read_text()
    assert done.stdout.startswith(first)
    for measured in visits(done.stdout).values():
        assert [visit["round"] for visit in measured] == list(range(len(measured)))
        assert len(measured) >= QUICK.min_rounds


def test_repeats_only_what_the_host_has_not_seen(tmp_path):
    kit = make_kit(tmp_path / "kit", [conv_model(tmp_path, "conv")])
    before = run_agent(kit).stdout.splitlines()
    after = run_agent(kit, "--seen", "3").stdout.splitlines()
    assert after[: len(before) - 3] == before[3:]
    assert [record["type"] for record in records("\n".join(after[len(before) - 3 :]))] == ["device", "end"]


def test_refuses_the_results_of_another_kit(tmp_path):
    kit = make_kit(tmp_path / "one", [conv_model(tmp_path, "conv")])
    run_agent(kit)
    other = make_kit(tmp_path / "other", [conv_model(tmp_path, "conv", 5)])
    (other / "results.jsonl").write_text((kit / "results.jsonl").read_text())
    done = run_agent(other)
    assert done.returncode == 1
    assert "another kit" in done.stderr


def test_the_time_limit_leaves_a_first_look_at_every_model(tmp_path):
    models = [conv_model(tmp_path, f"conv{i}", 2 * i + 1) for i in range(6)]
    settings = replace(QUICK, time_limit_s=0.001, target_half_width=1e-9)
    text = run_agent(make_kit(tmp_path / "kit", models, settings)).stdout
    assert [len(measured) for measured in visits(text).values()] == [1] * 6
    end = records(text)[-1]
    assert sorted(end["cut_short"]) == [model.key for model in models]
    assert end["noisy"] == []


def test_unsure_after_all_rounds_is_said(tmp_path):
    settings = replace(QUICK, target_half_width=1e-9)
    text = run_agent(make_kit(tmp_path / "kit", [conv_model(tmp_path, "conv")], settings)).stdout
    assert len(visits(text)["conv"]) == QUICK.max_rounds
    assert records(text)[-1]["noisy"] == ["conv"]


# --- dying ---------------------------------------------------------------------------------------------


def hanging_kit(tmp_path: Path) -> tuple[Path, dict[str, str], Path]:
    """A kit whose model writes its worker's process id to a file, and then hangs."""
    mark = tmp_path / "mark"
    env = {**stub_runtime(tmp_path / "stub"), "STUB_MARK": str(mark)}
    return make_kit(tmp_path / "kit", [bytes_model(tmp_path, "mark", b"mark")]), env, mark


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("death", ["stdin closes", "SIGTERM", "SIGINT"])
def test_ends_with_its_host_and_takes_the_worker_along(tmp_path, how, death):
    kit, env, mark = hanging_kit(tmp_path)
    with start(kit, "--attached", *filter(None, [how]), env=env) as process:
        worker = int(wait_for(lambda: mark.exists() and mark.read_text()))
        if death == "stdin closes":
            process.stdin.close()
        else:
            process.send_signal(getattr(signal, death))
        assert process.wait(300) == 130
    wait_for(lambda: not is_alive(worker))
    assert visits((kit / "results.jsonl").read_text()) == {}  # nobody failed, it was we who left


def test_only_one_measures_at_a_time(tmp_path):
    kit, env, mark = hanging_kit(tmp_path)
    with start(kit, "--attached", env=env) as first:
        wait_for(mark.exists)
        with start(kit, "--attached", env=env) as second:
            assert json.loads(second.stdout.readline())["type"] == "waiting"
            mark.unlink()
            first.stdin.close()  # now the lock is free, and the second one starts
            wait_for(mark.exists)
            second.stdin.close()


def test_the_lock_of_a_killed_agent_is_free(tmp_path):
    kit = make_kit(tmp_path / "kit", [conv_model(tmp_path, f"conv{k}", k) for k in (1, 3)], replace(QUICK, visit_s=0.5))
    with start(kit, env={}) as process:
        wait_for(
            lambda: b'"visit"' in (kit / "results.jsonl").read_bytes() if (kit / "results.jsonl").exists() else False
        )
        process.kill()
    done = run_agent(kit)
    assert done.returncode == 0, done.stderr
    assert all(len(measured) >= QUICK.min_rounds for measured in visits(done.stdout).values())


# --- clocks --------------------------------------------------------------------------------------------


def fake_cores(folder: Path, governor: str = "ondemand") -> Path:
    """A folder like the kernel's, with a governor for each core of this machine."""
    for core in {0, *os.sched_getaffinity(0)}:
        (folder / f"cpu{core}/cpufreq").mkdir(parents=True)
        (folder / f"cpu{core}/cpufreq/scaling_governor").write_text(governor)
    return folder


def governors(cores: Path) -> list[str]:
    return sorted(path.read_text() for path in cores.glob("cpu*/cpufreq/scaling_governor"))


def look_there(kit: Path, cores: Path) -> None:
    """Let the kit's agent find the cores in another folder."""
    file = kit / "ofa_agent" / "cores.py"
    source = file.read_text()
    assert '"/sys/devices/system/cpu"' in source
    file.write_text(source.replace('"/sys/devices/system/cpu"', repr(str(cores))))


def test_the_clock_is_steady_while_it_measures_and_then_as_before(tmp_path):
    cores = fake_cores(tmp_path / "cpu")
    before = governors(cores)
    kit = make_kit(tmp_path / "kit", [conv_model(tmp_path, "conv")])
    look_there(kit, cores)
    done = run_agent(kit)
    assert done.returncode == 0, done.stderr
    device = records(done.stdout)[1]
    assert (device["governor"], device["governor_found"]) == ("performance", "ondemand")
    assert not any("governor" in note for note in device["uncontrolled"])
    assert governors(cores) == before
    assert not (kit / "lock.governors").exists()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("death", ["stdin closes", "SIGTERM", "SIGINT", "SIGHUP"])
def test_the_governor_is_set_back_however_it_ends(tmp_path, how, death):
    cores = fake_cores(tmp_path / "cpu")
    before = governors(cores)
    kit, env, mark = hanging_kit(tmp_path)
    look_there(kit, cores)
    with start(kit, "--attached", *filter(None, [how]), env=env) as process:
        wait_for(mark.exists)
        assert governors(cores) == sorted(["performance", *before[1:]])  # the core in use, no other
        if death == "stdin closes":
            process.stdin.close()
        else:
            process.send_signal(getattr(signal, death))
        assert process.wait(300) == 130
    assert governors(cores) == before


def test_a_run_after_a_kill_sets_the_governor_back(tmp_path):
    cores = fake_cores(tmp_path / "cpu")
    before = governors(cores)
    kit, env, mark = hanging_kit(tmp_path)
    look_there(kit, cores)
    with start(kit, env=env) as process:
        worker = int(wait_for(lambda: mark.exists() and mark.read_text()))
        process.kill()
    os.kill(worker, signal.SIGKILL)
    assert governors(cores) != before
    next_kit = make_kit(tmp_path / "next", [conv_model(tmp_path, "conv")])
    look_there(next_kit, cores)
    done = run_agent(next_kit, "--lock", str(kit / "lock"))
    device = next(record for record in records(done.stdout) if record["type"] == "device")  # the lock may be waited for
    assert (device["governor"], device["governor_found"]) == ("performance", "ondemand")
    assert governors(cores) == before
    assert not (kit / "lock.governors").exists()


def test_who_may_not_set_the_governor_records_it(tmp_path, monkeypatch):
    cores = fake_cores(tmp_path / "cpu")
    monkeypatch.setattr("device_agents.ofa_agent.cores.CPUS", str(cores))
    monkeypatch.setattr(clocks.os, "access", lambda path, mode: False)
    memory = tmp_path / "memory"
    with clocks.steady_clocks([0], str(memory)) as found:
        assert found == {0: "ondemand"}
        assert clocks.governor(0) == "ondemand"
        assert not memory.exists()


def test_a_kernel_that_refuses_a_governor_is_believed(tmp_path, monkeypatch):
    monkeypatch.setattr("device_agents.ofa_agent.cores.CPUS", str(fake_cores(tmp_path / "cpu")))
    monkeypatch.setattr(clocks, "set_governor", lambda core, name: False)
    with clocks.steady_clocks([0], str(tmp_path / "memory")) as found:
        assert found == {0: "ondemand"}
        assert clocks.governor(0) == "ondemand"
    assert not (tmp_path / "memory").exists()


def test_what_cannot_be_set_back_yet_stays_remembered(tmp_path, monkeypatch):
    cores = fake_cores(tmp_path / "cpu", "performance")
    monkeypatch.setattr("device_agents.ofa_agent.cores.CPUS", str(cores))
    memory = tmp_path / "memory"
    memory.write_text('{"0": "schedutil"}')
    with monkeypatch.context() as without_root:
        without_root.setattr(clocks, "set_governor", lambda core, name: False)
        with clocks.steady_clocks([0], str(memory)) as found:
            assert found == {0: "schedutil"}
    assert json.loads(memory.read_text()) == {"0": "schedutil"}
    assert clocks.restore(str(memory)) == {}
    assert clocks.governor(0) == "schedutil"
    assert not memory.exists()


def test_a_governor_that_somebody_else_has_set_since_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("device_agents.ofa_agent.cores.CPUS", str(fake_cores(tmp_path / "cpu", "powersave")))
    memory = tmp_path / "memory"
    memory.write_text('{"0": "ondemand", "77": "ondemand"}')
    assert clocks.restore(str(memory)) == {}
    assert clocks.governor(0) == "powersave"
    assert not memory.exists()


@pytest.mark.parametrize("rubbish", ["", "[]", "{", '{"a": 1}', '{"0": {}}', "\0"])
def test_a_damaged_memory_changes_nothing(tmp_path, monkeypatch, rubbish):
    monkeypatch.setattr("device_agents.ofa_agent.cores.CPUS", str(fake_cores(tmp_path / "cpu", "powersave")))
    (tmp_path / "memory").write_text(rubbish)
    with clocks.steady_clocks([0], str(tmp_path / "memory")) as found:
        assert found == {0: "powersave"}
    assert clocks.governor(0) == "powersave"
    assert not (tmp_path / "memory").exists()


# --- when a median is known ----------------------------------------------------------------------------


@pytest.mark.parametrize(("between", "within"), [(0.03, 0.01), (0.0, 0.05), (0.02, 0.05)])
def test_the_interval_covers_the_median(between, within):
    """Rounds that drift by `between`, samples that scatter by `within`: 95% intervals hold the truth."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        rounds = [1e6 * (1 + between * rng.normal()) * (1 + within * rng.normal(size=25)) for _ in range(5)]
        samples = [int(sample) for samples in rounds for sample in samples]
        medians = [statistics.median(samples) for samples in rounds]
        covered += abs(statistics.median(samples) - 1e6) <= half_width(medians, samples) * 1e6
    assert covered / 400 > 0.9


def test_drift_between_rounds_is_not_hidden_by_many_samples():
    rng = np.random.default_rng(1)
    rounds = [level * (1 + 0.001 * rng.normal(size=1000)) for level in (1.0, 1.1, 1.2)]
    samples = [sample for samples in rounds for sample in samples]
    assert half_width([1.0, 1.1, 1.2], samples) > 0.1
    assert half_width([1.0], samples[:1000]) is None


# --- files that cannot be written -----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "words"), [("lock", "cannot write"), ("results.jsonl", "cannot read")])
def test_a_file_that_is_in_the_way_is_one_fatal_record(tmp_path, name, words):
    kit = make_kit(tmp_path / "kit", [conv_model(tmp_path, "conv")])
    (kit / name).mkdir()
    done = run_agent(kit)
    assert done.returncode == 1
    (record,) = records(done.stdout)
    assert (record["type"], record["error"]) == ("fatal", f"{words} {kit / name}: Is a directory")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not CAN_FORK, reason="the worker is a fork on Linux only")
def test_a_worker_whose_supervisor_was_killed_says_nothing(tmp_path):
    """What it would say is taken for the reason."""
    settings = replace(QUICK, visit_s=0.3, max_visit_samples=100_000)
    kit = make_kit(tmp_path / "kit", [conv_model(tmp_path, "conv")], settings)
    with (tmp_path / "err").open("w+") as words:
        process = subprocess.Popen(
            [sys.executable, str(kit / "agent.py"), "--kit", str(kit)], stdout=subprocess.DEVNULL, stderr=words
        )
        wait_for(lambda: (kit / "results.jsonl").exists() and '"visit"' in (kit / "results.jsonl").read_text())
        (worker,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        process.kill()
        process.wait()
        wait_for(lambda: not is_alive(worker))
        assert (tmp_path / "err").read_text() == ""
