"""Driving `benchmark_model` on an emulated phone: a program that prints what Google's prints."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.agents import wait_for
from support.kits import INPUTS, QUICK, make_kit
from support.phones import Phone, shell_to
from support.proxy import Proxy
from support.sshd import free_port

from device_agents.ofa_agent.machine import WorkerMachine
from device_agents.ofa_agent.medians import clusters_half_width
from ofa_profiler import devices
from ofa_profiler.devices import DeviceOptions, open_device
from ofa_profiler.devices.android import ROOT
from ofa_profiler.devices.android.benchmark_runner import BenchmarkRunner
from ofa_profiler.devices.android.benchmark_worker import Task
from ofa_profiler.errors import InputFileError
from ofa_profiler.export import Model
from ofa_profiler.measuring.progress import MeasuringProgress
from ofa_profiler.measuring.session import measure
from ofa_profiler.measuring.table_from_journal import table_metadata
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.records import Device, Run
from ofa_profiler.protocol.target import Target

#: A model is what the program does: `time N` takes N microseconds, others are misbehaviours.
PROGRAM = r"""#!/system/bin/sh
for word in "$@"; do
  case $word in --graph=*) graph=${word#--graph=};; --num_runs=*) runs=${word#--num_runs=};; esac
  print -r -- "$word" >> /data/local/tmp/words
done
read -r what us < "$graph"
low=$((us - 1)); high=$((us + 1))
case $what in
  crash) echo "INFO: STARTING!"; kill -SEGV $$;;
  refuse) echo "ERROR: Node number 2 failed to prepare." >&2; exit 1;;
  hang) sleep 600;;
  once) [ -e "$graph.killed" ] || { touch "$graph.killed"; kill -KILL $$; };;
  few) runs=$((runs - 1));;
esac
echo "INFO: Initialized session in 1.5ms."
warm=$((us * 3))
echo "INFO: count=1 curr=$warm"
echo
[ $what = cut ] && exit 0
echo "INFO: count=$runs first=$us curr=$us min=$low max=$high avg=$us std=1 p5=$low median=$us p95=$high"
echo
echo "INFO: Inference timings in us: Init: 1500, First inference: $warm, Warmup (avg): $warm, Inference (avg): $us"
"""

SETTINGS = replace(QUICK, target=Target("litert"), max_rounds=6, op_timeout_s=8.0)


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with pytest.MonkeyPatch.context() as patch, Phone(tmp_path_factory.mktemp("phone")) as phone:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        yield phone


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "android_aarch64_benchmark_model"
    path.write_text(PROGRAM)
    return path


def model(folder: Path, key: str, what: str) -> Model:
    folder.mkdir(exist_ok=True)
    path = folder / f"{key.replace('/', '_')}.tflite"
    path.write_text(what + "\n")
    return Model.from_file(key, path, INPUTS)


def device_of(spec: str, program: Path) -> devices.Device:
    return open_device(spec, DeviceOptions(benchmark_model=program))


def records(journal: Path, kind: str) -> list[dict[str, object]]:
    return [record for record in map(json.loads, journal.read_text().splitlines()) if record["type"] == kind]


@pytest.mark.slow
def test_models_are_measured_and_failures_stay_alone(phone: Phone, program: Path, tmp_path: Path) -> None:
    kinds = {
        "fast": "time 11",
        "slow $(id) 'é": "time 111001",
        "killed once": "once 12",
        "crash": "crash 5",
        "refuse": "refuse 5",
        "cut": "cut 5",
    }
    kinds |= {"few": "few 5", "hang": "hang 5"}
    models = [model(tmp_path / "models", key, what) for key, what in kinds.items()]
    journal = tmp_path / "j.jsonl"
    state: list[str] = []

    def watch(_progress: MeasuringProgress) -> None:
        state.append(phone.text("data/local/fixed_performance_mode"))

    with device_of(phone.spec, program) as device:
        assert device.describe().model == "Pixel Sim"
        results = measure(device, models, SETTINGS, journal=journal, progress=watch)

    assert results["fast"].median_ms == 0.011
    assert results["slow $(id) 'é"].median_ms == 111.001
    assert results["killed once"].median_ms == 0.012
    errors = {key: result.error or "" for key, result in results.items() if not result.ok}
    assert errors.keys() == {"crash", "refuse", "cut", "few", "hang"}
    assert "139" in errors["crash"]
    assert "failed to prepare" in errors["refuse"]
    assert "damaged" in errors["cut"]
    assert "runs, not" in errors["few"]
    assert "within 8 s" in errors["hang"]
    assert set(state) == {"true"}
    assert phone.text("data/local/fixed_performance_mode") == "false"

    device_record = records(journal, "device")[0]
    assert device_record["cores_used"] == [1]  # the fast one
    assert device_record["fixed_performance_mode"] is True
    visits = [visit for visit in records(journal, "visit") if visit["key"] == "fast"]
    assert len(visits) == SETTINGS.min_rounds  # all alike: there is nothing to refine
    assert visits[0]["runs"] == SETTINGS.min_visit_samples
    assert visits[1]["runs"] == SETTINGS.max_visit_samples  # as many as fit into a visit
    assert visits[-1]["half_width"] == 0.0
    words = phone.text("data/local/tmp/words").splitlines()
    assert {"--min_secs=0", "--max_secs=3600", "--num_threads=1", "--enable_op_profiling=false"} < set(words)


@pytest.mark.slow
def test_it_goes_on_where_it_was_and_brings_nothing_twice(phone: Phone, program: Path, tmp_path: Path) -> None:
    models = [model(tmp_path / "models", f"op {number}", f"time {100 + number}") for number in range(4)]
    journal = tmp_path / "j.jsonl"

    class Stop(Exception):
        pass

    def stop(progress: MeasuringProgress) -> None:
        if progress.visits == 3:
            raise Stop

    with device_of(phone.spec, program) as device, pytest.raises(Stop):
        measure(device, models, SETTINGS, journal=journal, progress=stop)
    assert phone.text("data/local/fixed_performance_mode") == "false"
    folder = phone.root / ROOT[1:] / "benchmark_model"
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    damaged = next(path for path in folder.iterdir() if path.suffix == ".tflite" and "10" in path.read_text())
    damaged.write_text("time 7\n")
    with device_of(phone.spec, program) as device:
        results = measure(device, models, SETTINGS, journal=journal)
    assert [result.median_ms for result in results.values()] == [0.1, 0.101, 0.102, 0.103]
    found = [(visit["key"], visit["round"]) for visit in records(journal, "visit")]
    assert len(found) == len(set(found)) == 4 * SETTINGS.min_rounds
    after = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {damaged.name}


@pytest.mark.long
def test_models_whose_transfer_is_cut_come_by_and_by(phone: Phone, program: Path, tmp_path: Path) -> None:
    models = []
    for number in range(4):
        name = f"big {number}"
        models.append(model(tmp_path / "models", name, f"time {100 + number}"))
        path = tmp_path / "models" / f"{name}.tflite"
        path.write_bytes(path.read_bytes() + random.Random(number).randbytes(3_000_000))
        models[-1] = Model.from_file(name, path, INPUTS)
    proxy = Proxy(phone.port)
    cuts: list[int] = []

    def cut_again(progress: MeasuringProgress) -> None:
        if "trying again" in progress.waiting:
            cuts.append(1)
            proxy.cut_after = proxy.passed + 3_500_000 if len(cuts) < 3 else None

    proxy.cut_after = 3_500_000
    with (
        contextlib.closing(proxy),
        device_of(f"adb:127.0.0.1:{proxy.port}", program) as device,
    ):
        results = measure(device, models, SETTINGS, journal=tmp_path / "j.jsonl", progress=cut_again)
    assert [result.median_ms for result in results.values()] == [0.1, 0.101, 0.102, 0.103]
    # Each try brings one of four. A cut can also meet the end of a connection that is given up already.
    assert 3 <= len(cuts) <= 5


def test_a_program_that_cannot_be_read(phone: Phone, tmp_path: Path) -> None:
    models = [model(tmp_path / "models", "op", "time 5")]
    device = device_of(phone.spec, tmp_path / "none")
    with device, pytest.raises(InputFileError, match="No such file"):
        measure(device, models, SETTINGS)


def test_a_median_is_known_as_well_as_visits_agree() -> None:
    assert clusters_half_width([100]) is None
    assert clusters_half_width([100, 100, 100]) == 0
    assert clusters_half_width([99, 100, 101]) == pytest.approx(4.303 * 1 / 3**0.5 / 100)


def test_cores_are_chosen_by_their_clocks() -> None:
    machine = WorkerMachine(None)
    device = {"max_mhz": {"0": 1800.0, "4": 2400.0, "7": 2800.0, "9": 0}}
    assert machine.fastest_cores(device, 1) == [7]
    assert machine.fastest_cores(device, 2) == [4, 7]
    assert machine.fastest_cores(device, 4) is None
    assert machine.fastest_cores({"max_mhz": None}, 1) is None


@pytest.mark.slow
def test_such_a_phone_gets_the_reference_op_and_pauses_for_heat(
    phone: Phone, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every device does: the agent is the same."""
    models = [model(tmp_path / "models", f"op {number}", f"time {900 + number}") for number in range(3)]
    status = phone.root / "data/local/thermal_status"
    before = status.read_text() if status.exists() else None
    status.write_text("3")
    waited: list[str] = []

    def cool(progress: MeasuringProgress) -> None:
        if progress.waiting:
            waited.append(progress.waiting)
            status.write_text("0")

    settings = replace(SETTINGS, reference_every_s=0.5, min_rounds=3)
    journal = tmp_path / "j.jsonl"
    try:
        with device_of(phone.spec, program) as device:
            results = measure(device, models, settings, journal=journal, progress=cool)
    finally:
        status.unlink() if before is None else status.write_text(before)
    assert waited == ["the device cools down: Android reports thermal status 3"]
    assert [result.median_ms for result in results.values()] == [0.9, 0.901, 0.902]
    (device_record,) = records(journal, "device")
    assert device_record["before"]["throttled"] == "Android reports thermal status 3"
    looks = records(journal, "reference")
    assert len(looks) > 5
    assert {look["status"] for look in looks} == {"ok"}
    assert not any(look["drifted"] for look in looks)
    (end,) = records(journal, "end")
    assert (end["repeated"], end["drifted"], end["measured_hot"]) == (0, 0, None)


def test_who_stops_in_the_middle_of_a_visit_finds_the_phone_as_it_was(
    phone: Phone, program: Path, tmp_path: Path
) -> None:
    """The worker waits for the phone then, for minutes perhaps."""
    models = [model(tmp_path / "models", "hang", "hang 5")]
    kit = make_kit(tmp_path / "kit", models, replace(SETTINGS, op_timeout_s=600.0))
    with device_of(phone.spec, program) as device, contextlib.closing(device.measure_kit(kit, 0)) as found:
        assert [type(next(found)) for _ in range(2)] == [Run, Device]
        words = phone.root / "data/local/tmp/words"
        words.unlink(missing_ok=True)
        wait_for(lambda: words.exists() and "--num_runs" in words.read_text())
        begin = time.monotonic()
        found.close()
        assert time.monotonic() - begin < 30, "the agent was killed before its worker had restored the state"
    assert phone.text("data/local/fixed_performance_mode") == "false"


@pytest.fixture
def fastest_core_is_off(phone: Phone) -> Iterator[Path]:
    """A core that is faster than the others, and that no program can use -> its folder."""
    core = phone.root / "sys/devices/system/cpu/cpu7"
    shutil.copytree(core.with_name("cpu1"), core)
    (core / "cpufreq/cpuinfo_max_freq").write_text("3187200\n")
    yield core
    shutil.rmtree(core)


def test_a_core_that_is_off_is_not_chosen(
    phone: Phone, program: Path, tmp_path: Path, fastest_core_is_off: Path
) -> None:
    journal = tmp_path / "j.jsonl"
    models = [model(tmp_path / "models", "op", "time 11")]
    with device_of(phone.spec, program) as device:
        assert measure(device, models, SETTINGS, journal=journal)["op"].median_ms == 0.011
    (found,) = records(journal, "device")
    assert (found["cores_allowed"], found["cores_used"]) == ([0, 1], [1])


def test_without_a_core_that_it_can_be_pinned_to_it_goes_on_with_a_note(
    phone: Phone, program: Path, tmp_path: Path, fastest_core_is_off: Path
) -> None:
    """The phone says that the core is on."""
    online = fastest_core_is_off.with_name("online")
    before = online.read_text()
    online.write_text("7\n")
    journal = tmp_path / "j.jsonl"
    models = [model(tmp_path / "models", "op", "time 11")]
    try:
        with device_of(phone.spec, program) as device:
            results = measure(device, models, SETTINGS, journal=journal)
    finally:
        online.write_text(before)
    assert results["op"].median_ms == 0.011
    (found,) = records(journal, "device")
    assert found["cores_used"] is None
    assert "the process could not be pinned to its cores" in found["uncontrolled"]


def test_a_core_that_is_switched_off_meanwhile_costs_no_op(phone: Phone, program: Path, tmp_path: Path) -> None:
    op = model(tmp_path / "models", "op", "time 11")
    with contextlib.closing(shell_to(phone.spec)) as shell:
        runner = BenchmarkRunner.bring(shell, ROOT, program.read_bytes(), {op.path: op.sha256}, SETTINGS, [62])
        answer = runner.visit({"file": op.path.name, "path": str(op.path), "inputs": []}, 0.1, None)
    assert answer["samples_ns"] == [11000]
    (note,) = answer["notes"]
    assert note.startswith("not pinned to its cores: ")
    assert "taskset" in note


def test_what_the_program_complains_of_stands_beside_its_numbers(phone: Phone, program: Path, tmp_path: Path) -> None:
    """In the record of each visit, and once in the JSON of the table."""
    words = "Can not open OpenCL library on this device"
    program.write_text(
        PROGRAM.replace('echo "INFO: Initialized', f'echo "ERROR: {words}" >&2\necho "INFO: Initialized')
    )
    journal = tmp_path / "j.jsonl"
    models = [model(tmp_path / "models", f"op {number}", "time 11") for number in range(2)]
    with device_of(phone.spec, program) as device:
        assert all(result.ok for result in measure(device, models, SETTINGS, journal=journal).values())
    assert all(visit["notes"] == [words] for visit in records(journal, "visit"))
    replay, _ = read_journal(journal)
    assert f"the runtime said of 2 ops: {words}" in table_metadata(replay)["device"]["uncontrolled"]


# --- the worker alone, without a phone --------------------------------------------------------------------


def test_a_phone_that_is_not_there_is_a_transient_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a folder with a module that hides one of Python's own."""
    (tmp_path / "queue.py").write_text("raise SystemExit('a file that lies around was imported')")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
    command = Task(f"adb:127.0.0.1:{free_port()}").command()
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"ask": "describe"}\n')
        process.stdin.flush()
        answer = next(line for line in map(json.loads, process.stdout) if "alive" not in line)
        process.stdin.close()
        assert process.wait(60) == 0
    assert answer["fatal"].startswith("connection refused")
    assert (answer["usage"], answer["transient"]) == (False, True)
