"""`ofa-profile` as people run it: a whole small table, interrupted in every way, by hand on a board, and misused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kits import run_agent

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.cli.profile import main
from ofa_profiler.devices.local import _lock_file
from ofa_profiler.errors import UsageError
from ofa_profiler.measuring.naming import check_name, default_name, slug
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.records import Device
from ofa_profiler.protocol.settings import Settings
from ofa_profiler.protocol.target import Target

SPACE = ["--space", "cifar-mbv3", "--resolution", "24", "--no-calibration"]
#: Little time makes visits short; every op still gets its first.
SHORT = [*SPACE, "--time-limit", "500ms"]
COLUMNS = (
    "op, kind, input_shape, output_shape, kernel_size, mid_channels, stride, skip, se, activation, batch, precision, "
    "median_ms, mean_ms, std_ms, p10_ms, p90_ms, samples, status"
)
N_OPS = len(get_space("cifar-mbv3").unique_ops([24]))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A table that the command made, and what it said with --json. Not to be changed."""
    out = tmp_path_factory.mktemp("profiled")
    done = run("--device", "local", "--out", str(out), *SHORT, "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ofa_profiler.cli.profile", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    with start(*arguments) as process:
        out, words = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, out, words)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The one line with which the command refuses."""
    assert main(list(arguments)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("ofa-profile: ")
    return lines[0]


# --- a table -------------------------------------------------------------------------------------------


def test_the_json_document_says_how_it_went(profiled):
    out, said = profiled
    assert {path.name for path in out.iterdir()} == {
        f"{said['name']}{suffix}" for suffix in (".csv", ".html", ".json", ".jsonl")
    }
    assert (said["ops"], said["ok"], said["failed"], said["failures"]) == (N_OPS, N_OPS, 0, {})
    assert said["name"].endswith("-cifar-mbv3")
    assert Path(said["table"]) == out / f"{said['name']}.csv"
    assert 0 < said["measuring_seconds"] < said["seconds"]
    assert said["measuring_share"] == pytest.approx(said["measuring_seconds"] / said["seconds"], abs=1e-3)


def test_the_table_covers_the_space_and_reads_with_pandas(profiled):
    _, said = profiled
    table = LatencyTable.load(said["table"])
    space = get_space("cifar-mbv3")
    assert table.spaces == ("cifar-mbv3",)
    assert table.resolutions(space) == (24,)
    frame = pd.read_csv(said["table"])
    assert ", ".join(frame.columns[:19]) == COLUMNS
    assert set(frame.op) == {op.key for op in space.unique_ops([24])}
    assert (frame.status == "ok").all()
    assert (frame.samples >= Settings().min_visit_samples).all()


def test_the_metadata_say_who_how_and_when(profiled):
    _, said = profiled
    metadata = json.loads(Path(said["metadata"]).read_text())
    assert metadata["format"] == 1
    assert metadata["device"]["model"]
    assert metadata["device"].keys() >= {"soc", "cores_used", "governor", "before", "after"}
    assert metadata["device"]["before"].keys() >= {"mhz", "temperature_c", "load_average", "throttled"}
    assert (metadata["runtime"], metadata["provider"]) == ("onnxruntime", "CPUExecutionProvider")
    assert metadata["runtime_version"]
    assert (metadata["precision"], metadata["threads"], metadata["batch"]) == ("fp32", 1, 1)
    assert (metadata["spaces"], metadata["resolutions"]) == (["cifar-mbv3"], [24])
    assert metadata["date"] > "2026"
    assert metadata["tool_version"]
    assert metadata["correction"] == {"method": "sum"}
    assert metadata["validation"] is None
    assert metadata["sampling"]["cut_short"] + metadata["sampling"]["noisy"] <= N_OPS


def test_the_medians_are_those_of_the_samples_in_the_journal(profiled):
    _, said = profiled
    samples: dict[str, list[int]] = {}
    for line in Path(said["journal"]).read_text().splitlines():
        record = json.loads(line)
        if record["type"] == "visit":
            samples.setdefault(record["key"], []).extend(record["samples_ns"])
    frame = pd.read_csv(said["table"]).set_index("op")
    for key, nanoseconds in samples.items():
        assert frame.loc[key, "samples"] == len(nanoseconds)
        assert frame.loc[key, "median_ms"] == pytest.approx(pd.Series(nanoseconds).median() / 1e6)


def test_a_finished_table_is_left_alone(profiled, tmp_path):
    out, said = profiled
    shutil.copytree(out, tmp_path / "out")
    metadata = tmp_path / "out" / f"{said['name']}.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "validation": {"mape": 0.1}}))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    done = run("--device", "local", "--out", str(tmp_path / "out"), *SHORT, "--json")
    assert done.returncode == 0
    assert "up to date" in done.stderr
    assert json.loads(done.stdout)["was_complete"] is True
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    page = f"{said['name']}.html"
    assert b"mape 10.00%" in after.pop(page)  # it follows from the JSON
    assert before.keys() == after.keys() | {page}
    assert {name: before[name] for name in after} == after


def test_csv_and_json_come_back_from_the_journal_alone(profiled, tmp_path, capsys):
    out, said = profiled
    journal = tmp_path / f"{said['name']}.jsonl"
    shutil.copy(said["journal"], journal)
    assert main(["--import", str(journal), "--out", str(tmp_path)]) == 0
    for suffix in (".csv", ".json", ".jsonl"):
        assert journal.with_suffix(suffix).read_bytes() == (out / f"{said['name']}{suffix}").read_bytes()
    journal.with_suffix(".csv").unlink()
    done = run("--device", "local", "--out", str(tmp_path), *SHORT)
    assert done.returncode == 0, done.stderr
    assert journal.with_suffix(".csv").read_bytes() == (out / f"{said['name']}.csv").read_bytes()


def test_other_settings_do_not_mix(profiled, capsys):
    out, said = profiled
    before = Path(said["journal"]).read_bytes()
    line = refused(capsys, "--device", "local", "--out", str(out), *SHORT, "--name", said["name"], "--batch", "2")
    assert "batch 1, now 2" in line
    assert "--fresh" in line
    line = refused(capsys, "--device", "local", "--out", str(out), "--space", "cifar-mbv3", "--resolution", "28")
    assert "resolutions [24], now [28]" in line
    assert Path(said["journal"]).read_bytes() == before


# --- interrupted ---------------------------------------------------------------------------------------


def n_visits(out: Path) -> int:
    return sum(path.read_bytes().count(b'"visit"') for path in out.glob("*.jsonl"))


def interrupted_at(process: subprocess.Popen[str], out: Path, visits: int, number: int) -> None:
    deadline = time.monotonic() + 300
    while n_visits(out) < visits:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, -9),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_interrupted_and_run_again_it_goes_on(tmp_path, number, code):
    command = ["--device", "local", "--out", str(tmp_path), "--name", "table", *SHORT]
    kept = b""
    for visits in (20, 50):
        with start(*command) as process:
            interrupted_at(process, tmp_path, visits, number)
            _, words = process.communicate(timeout=300)
            assert process.returncode == code
        if number != signal.SIGKILL:
            assert words.strip().splitlines()[-1].startswith("ofa-profile: interrupted")
            assert "run the same command again" in words
        assert sorted(path.name for path in tmp_path.iterdir()) == ["table.jsonl"]
        journal = (tmp_path / "table.jsonl").read_bytes()
        assert journal.startswith(kept)
        kept = journal[: journal.rfind(b"\n") + 1]
        assert visits <= kept.count(b'"visit"') < N_OPS

    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table.jsonl").read_bytes().startswith(kept)
    replay, _ = read_journal(tmp_path / "table.jsonl")
    assert len(replay.devices) == 3
    for key, visits in replay.visits.items():
        assert [visit.round for visit in visits] == list(range(len(visits))), key
        assert visits
    assert len(LatencyTable.load(tmp_path / "table.csv").rows) == N_OPS


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="locks through fcntl")
def test_says_that_it_waits_for_another_measurement(tmp_path):
    import fcntl

    with _lock_file().open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with start("--device", "local", "--out", str(tmp_path), *SHORT) as process:
            assert process.stderr.readline() == "note: waiting for another measurement on this device\n"
            fcntl.flock(lock, fcntl.LOCK_UN)
            process.communicate(timeout=300)
    assert process.returncode == 0


# --- a board without any connection --------------------------------------------------------------------


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit that was measured by hand, in another place than where it was made."""
    made = tmp_path_factory.mktemp("board") / "made"
    assert main(["--kit", str(made), *SHORT]) == 0
    kit = made.parent / "on the board; $(x)"
    made.rename(kit)
    done = run_agent(kit)
    assert done.returncode == 0, done.stderr
    return kit


def test_a_kit_is_complete(board):
    manifest = json.loads((board / "manifest.json").read_text())
    assert len(manifest["models"]) == N_OPS
    files = [file for model in manifest["models"] for file in (model, *model.get("variants", ()))]
    assert {path.name for path in (board / "models").iterdir()} == {file["file"] for file in files}
    assert manifest["ops"] == [op.to_json() for op in get_space("cifar-mbv3").unique_ops([24])]
    readme = (board / "README.md").read_text()
    assert "python3 agent.py --kit ." in readme
    assert len(readme.splitlines()) <= 14


def test_what_a_board_measured_becomes_a_table(board, tmp_path, capsys):
    arguments = ["--import", str(board / "results.jsonl"), "--out", str(tmp_path), "--json"]
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] == N_OPS
    assert said["name"].endswith("-cifar-mbv3")
    assert LatencyTable.load(said["table"]).resolutions(get_space("cifar-mbv3")) == (24,)
    assert Path(said["journal"]).read_bytes() == (board / "results.jsonl").read_bytes()
    assert main(arguments) == 0  # again


def test_what_a_board_measured_is_understood_without_its_space(board, tmp_path):
    first, *lines = (board / "results.jsonl").read_bytes().splitlines(keepends=True)
    results = tmp_path / "results.jsonl"
    results.write_bytes(b"".join([first.replace(b"cifar-mbv3", b"other-space"), *lines]))
    for path, name in ((results, "other"), (board / "results.jsonl", "known")):
        assert main(["--import", str(path), "--out", str(tmp_path), "--name", name]) == 0
    assert (tmp_path / "other.csv").read_bytes() == (tmp_path / "known.csv").read_bytes()


def test_an_unfinished_or_foreign_file_is_not_imported(board, tmp_path, capsys):
    lines = (board / "results.jsonl").read_bytes().splitlines(keepends=True)
    path = tmp_path / "results.jsonl"

    def problem(*content: bytes) -> str:
        path.write_bytes(b"".join(content))
        line = refused(capsys, "--import", str(path), "--out", str(tmp_path / "out"))
        assert str(path) in line
        assert not (tmp_path / "out").exists()
        return line

    assert "ops are not measured yet" in problem(*lines[:30])
    assert "contains no results" in problem()
    assert "contains no results" in problem(lines[0][:50])
    assert "row 3" in problem(lines[0], lines[1], b"nonsense\n", lines[2])
    assert "not JSON" in problem(b"op,kind,median_ms\n")
    run_line = json.loads(lines[0])
    del run_line["ops"]  # as version 0.1 wrote it
    run_line["about"] = {"spaces": ["cifar-mbv3"], "resolutions": [28]}
    assert "its ops are not those of cifar-mbv3" in problem(json.dumps(run_line).encode() + b"\n", *lines[1:])
    run_line["about"] = {"spaces": ["my-space"], "resolutions": [28]}
    assert "unknown search space" in problem(json.dumps(run_line).encode() + b"\n", *lines[1:])
    run_line["about"] = {"spaces": [["x"]], "resolutions": {"a": 1}}
    assert "row 1" in problem(json.dumps(run_line).encode() + b"\n", *lines[1:])
    assert "No such file" in refused(capsys, "--import", str(tmp_path / "none"), "--out", str(tmp_path))


def test_an_import_does_not_replace_another_measurement(board, profiled, tmp_path, capsys):
    out, said = profiled
    shutil.copytree(out, tmp_path / "out")
    arguments = ["--import", str(board / "results.jsonl"), "--out", str(tmp_path / "out"), "--name", said["name"]]
    assert "another measurement" in refused(capsys, *arguments)
    assert main([*arguments, "--fresh"]) == 0
    assert (tmp_path / "out" / f"{said['name']}.jsonl").read_bytes() == (board / "results.jsonl").read_bytes()


def test_a_hostile_device_name_stays_in_the_folder(board, tmp_path, capsys):
    records = [json.loads(line) for line in (board / "results.jsonl").read_text().splitlines()]
    for record in records:
        if record["type"] == "device":
            record["model"] = "../../etc/$(reboot)\n\x1b[2J\u202e" + "x" * 5000
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert main(["--import", str(path), "--out", str(tmp_path / "out")]) == 0
    assert "\x1b" not in capsys.readouterr().err
    assert len(list((tmp_path / "out").iterdir())) == 4
    (page,) = (tmp_path / "out").glob("*.html")
    assert "$(reboot)" in page.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"results.jsonl", "out"}


def test_failed_ops_become_rows_without_times(board, tmp_path, capsys):
    records = [json.loads(line) for line in (board / "results.jsonl").read_text().splitlines()]
    failed = next(iter(records[0]["models"]))
    for record in records:
        if record.get("key") == failed and record["round"] == 0:
            record.update(status="failed", error='killed by signal 11,\n"x"')
    records = [r for r in records if r.get("key") != failed or r["round"] == 0]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert main(["--import", str(path), "--out", str(tmp_path), "--name", "t", "--json"]) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert (said["ok"], said["failed"]) == (N_OPS - 1, 1)
    assert failed in captured.err
    row = pd.read_csv(tmp_path / "t.csv").set_index("op").loc[failed]
    assert row.status == "failed"
    assert row[["median_ms", "mean_ms", "std_ms", "p10_ms", "p90_ms"]].isna().all()

    only = [
        r if r["type"] != "visit" else {**r, "status": "failed", "error": "no"}
        for r in records
        if r.get("round", 0) == 0
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in only))
    assert "all" in refused(capsys, "--import", str(path), "--out", str(tmp_path), "--name", "u", code=4)
    assert not (tmp_path / "u.csv").exists()


# --- plans and refusals --------------------------------------------------------------------------------


def test_a_plan_does_nothing(tmp_path, capsys):
    assert main(["--device", "local", "--out", str(tmp_path / "out"), *SPACE, "--plan", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["ops"]) == N_OPS
    assert 0 < said["seconds"]["min"] <= said["seconds"]["expected"] <= said["seconds"]["max"] <= 600
    assert (said["complete"], said["basis"]) == (False, None)
    assert not (tmp_path / "out").exists()
    assert main([*SPACE, "--plan"]) == 0
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()[1:-2]] == [
        *dict.fromkeys(op.kind for op in get_space("cifar-mbv3").unique_ops([24]))
    ]
    assert captured.out.splitlines()[-1].startswith("measuring: about ")
    assert all(len(line) < 80 for line in captured.out.splitlines())
    assert "nothing was measured" in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--device"),
        (["--device", "local"], "--out"),
        (["--import", "x.jsonl"], "--out"),
        (["--device", "local", "--kit", "x", "--out", "OUT"], "exclude each other"),
        (["--device", "toaster", "--out", "OUT"], "unknown device 'toaster'"),
        (["--device", "local", "--out", "OUT", "--space", "x"], "unknown search space 'x'"),
        (["--device", "local", "--out", "OUT", "--runtime", "tensorrt"], "runtime 'tensorrt'"),
        (["--device", "local", "--out", "OUT", "--precision", "fp4"], "precision 'fp4'"),
        (["--device", "local", "--out", "OUT", "--provider", "X"], "no provider 'X'"),
        (["--device", "local", "--out", "OUT", "--threads", "0"], "'0'"),
        (["--device", "local", "--out", "OUT", "--threads", "many"], "'many'"),
        (["--device", "local", "--out", "OUT", "--threads", "999"], "999 threads"),
        (["--device", "local", "--out", "OUT", "--batch", "-1"], "--batch"),
        (["--device", "local", "--out", "OUT", "--batch", "1.5"], "'1.5'"),
        (["--device", "local", "--out", "OUT", "--resolution", "24,x"], "'x'"),
        (["--device", "local", "--out", "OUT", "--resolution", "25"], "no resolution 25"),
        (["--device", "local", "--out", "OUT", "--time-limit", "10"], "no unit"),
        (["--device", "local", "--out", "OUT", "--time-limit", "0s"], "above zero"),
        (["--device", "local", "--out", "OUT", "--name", "../x"], "--name"),
        (["--device", "local", "--out", "OUT", "--name", ""], "--name"),
        (["--device", "local", "--out", "OUT", "--nonsense"], "--nonsense"),
        (["--device", "local", "--out", "OUT", "--dev", "local"], "--dev"),
        (["--kit", "FULL", "--space", "cifar-mbv3"], "not an empty folder"),
    ],
)
def test_a_wrong_request_is_one_line(tmp_path, capsys, arguments, words):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    places = {"OUT": str(tmp_path / "out"), "FULL": str(tmp_path / "full")}
    space = [] if "--space" in arguments or "--resolution" in arguments else SPACE
    line = refused(capsys, *(places.get(word, word) for word in arguments), *space)
    assert words in line
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_an_out_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(capsys, "--device", "local", "--out", str(tmp_path / "file"), *SHORT)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version(capsys, option):
    with pytest.raises(SystemExit) as stop:
        main([option])
    assert stop.value.code == 0
    assert "ofa-profile" in capsys.readouterr().out


# --- names ---------------------------------------------------------------------------------------------


def device(model: str) -> Device:
    return Device.from_json({"type": "device", "time": "2026-01-01", "model": model})


@given(st.text(max_size=200), st.text(max_size=30))
def test_any_device_gives_a_safe_name(model, provider):
    name = default_name(device(model), ["cifar-mbv3"], Settings(provider=provider, threads=4))
    assert check_name(name) == name
    assert Path(name).name == name
    assert name.isascii()
    assert "cifar-mbv3" in name
    assert len(os.fsencode(name)) < 200


def test_names_say_what_differs_from_the_default():
    def name(precision: str = "fp32", runtime: str = "onnxruntime", batch: int = 1, **settings: Any) -> str:
        settings["target"] = Target(runtime, precision, batch)
        return default_name(device("Raspberry Pi 5 Model B"), ["cifar-mbv3"], Settings(**settings))

    assert name() == "raspberry-pi-5-model-b-cifar-mbv3"
    assert name(provider="CPUExecutionProvider") == name()
    assert name(precision="int8", threads=4, batch=8) == f"{name()}-int8-t4-b8"
    assert name(runtime="litert", provider="CUDAExecutionProvider") == f"{name()}-litert-cuda"
    assert slug("Intel(R) Core(TM) i5-1135G7 @ 2.40GHz") == "intel-core-i5-1135g7-2.40ghz"
    assert slug("NVIDIA Jetson Orin Näno") == "nvidia-jetson-orin-nano"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", ".hidden", "x" * 300, "a\n", "-x"])
def test_unsafe_names_are_refused(name):
    with pytest.raises(UsageError):
        check_name(name)
