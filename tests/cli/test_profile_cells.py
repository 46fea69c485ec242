"""`ofa-profile --precision fp32,int8`: tables of both precisions, measured in turns, and their comparison."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from support.agents import wait_for

from ofa_profiler import LatencyTable, profile, profile_matrix
from ofa_profiler.base.registry import Registry
from ofa_profiler.cli import verify as verify_cli
from ofa_profiler.cli.profile import main
from ofa_profiler.devices import DeviceKind, FakeDevice
from ofa_profiler.devices import registry as device_registry
from ofa_profiler.errors import DeviceError
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.tables.matrix import NETWORK, NOT_MEASURED, compute_matrix

CELLS = ("onnxruntime-fp32-t1", "onnxruntime-int8-t1")
#: Of every table of a cell; the page needs a library.
SUFFIXES = (".csv", ".json", ".jsonl", ".html")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFA_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@dataclass(frozen=True)
class Lab(FakeDevice):
    """A device by the name `lab:ADDRESS`."""

    model: str = "Board 3"


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: Registry[DeviceKind] = Registry("kind of device")
    kinds.add("lab", DeviceKind("lab", lambda spec, _: Lab(spec=spec), "lab:ADDRESS"))
    monkeypatch.setattr(device_registry, "_KINDS", kinds)


def words(tmp_path: Path, *more: str) -> list[str]:
    given = ["--precision", "fp32,int8", "--resolution", "24", "--out", str(tmp_path / "out")]
    return [*given, *more]


def run(tmp_path: Path, *more: str) -> int:
    return main(words(tmp_path, "--device", "lab:a", *more))


def test_two_tables_and_a_matrix_that_a_second_call_finds_complete(lab, tmp_path, capsys):
    assert run(tmp_path, "--name", "m", "--no-calibration", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["cells"]) == ["fp32", "int8"]
    names = [document["name"] for document in said["cells"].values()]
    assert names == [f"m-{cell}" for cell in CELLS]
    out = tmp_path / "out"
    tables = [LatencyTable.load(out / f"{name}.csv") for name in names]
    assert [table.metadata["precision"] for table in tables] == ["fp32", "int8"]
    kinds = [{row.description.kind for row in table.rows} for table in tables]
    assert kinds[1] - kinds[0] == {"quantize", "dequantize"}
    matrix = out / "m-matrix.csv"
    assert said["matrix"] == str(matrix)
    frame, before = pd.read_csv(matrix), matrix.read_bytes()
    assert [row["kind"] for row in said["rows"]] == list(frame.kind)
    assert {row.kind for row in compute_matrix(tables)} == kinds[1] | {NETWORK}
    expected = {*(f"m-{cell}{suffix}" for cell in CELLS for suffix in SUFFIXES), matrix.name}
    assert {path.name for path in out.iterdir()} == expected
    matrix.unlink()
    assert run(tmp_path, "--name", "m", "--no-calibration", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert [document["was_complete"] for document in again["cells"].values()] == [True, True]
    assert matrix.read_bytes() == before, "it follows from the tables alone"


@pytest.mark.slow
def test_both_are_calibrated(lab, tmp_path, capsys):
    assert run(tmp_path, "--name", "m", "--calibrate", "10", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [document["validation"]["subnets"] for document in said["cells"].values()] == [20, 20]
    for cell in CELLS:
        replay, _ = read_journal(tmp_path / "out" / f"m-{cell}-networks.jsonl")
        assert replay.end is not None
        assert len(replay.devices) > 1, "it paused for the other"
    assert said["mixed"]["validation"]["subnets"] == 20
    tables = [tmp_path / "out" / f"m-{cell}.json" for cell in CELLS]
    assert [json.loads(path.read_text())["mixed"]["validation"] for path in tables] == [said["mixed"]["validation"]] * 2
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.suffix != ".html"}
    assert run(tmp_path, "--name", "m", "--calibrate", "10", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert [document["was_complete"] for document in again["cells"].values()] == [True, True]
    assert {path: path.read_bytes() for path in before} == before, "nothing was measured again"
    tables = [tmp_path / "out" / f"m-{cell}.csv" for cell in CELLS]
    luts = [word for path in tables for word in ("--lut", str(path))]
    verify = [*luts, "--precision", "mixed", "--device", "lab:a", "--subnets", "5", "--time-limit", "1s", "--json"]
    assert verify_cli.main(verify) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["subnets"]) == 5
    assert all(subnet["architecture"]["bits"] for subnet in said["subnets"])
    for path in tables:
        assert json.loads(path.with_suffix(".json").read_text())["mixed"]["validation"]["mape"] == said["mape"]
    assert (tmp_path / "out" / f"m-{CELLS[1]}-mixed-verify.json").exists()
    for wrong, words in (
        ([*luts, "--precision", "int8"], "--precision int8: 2 --lut; one table has one precision"),
        ([*luts[:2], "--precision", "int8"], "is fp32"),
        ([*luts[:2], "--precision", "mixed"], "mixed precision needs a table of fp32 and one of int8"),
    ):
        assert verify_cli.main([*wrong, "--device", "lab:a"]) == 2
        assert words in capsys.readouterr().err


def test_the_comparison_is_printed_and_default_names_have_the_device(lab, tmp_path, capsys):
    assert run(tmp_path, "--no-calibration") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["kind", "count", "fp32", "ms", "int8", "ms", "gain", "from", "to"]
    assert lines[-1].split()[:2] == ["network", "100"]
    assert {path.name for path in (tmp_path / "out").glob("*.csv")} == {
        "board-3-cifar-mbv3-onnxruntime-fp32-t1.csv",
        "board-3-cifar-mbv3-onnxruntime-int8-t1.csv",
        "board-3-cifar-mbv3-matrix.csv",
    }


def test_several_devices_have_cells_each(lab, tmp_path, capsys):
    more = ["--device", "lab:b", "--name", "x", "--name", "y", "--no-calibration", "--json"]
    assert run(tmp_path, *more) == 0
    devices = json.loads(capsys.readouterr().out)["devices"]
    assert [document["matrix"] for document in devices.values()] == [
        str(tmp_path / "out" / f"{name}-matrix.csv") for name in "xy"
    ]


def test_a_cell_that_fails_does_not_stop_the_other(lab, tmp_path, capsys):
    taken = tmp_path / "out" / f"m-{CELLS[1]}.jsonl"
    taken.parent.mkdir()
    taken.write_text("no journal\n")
    assert run(tmp_path, "--name", "m", "--no-calibration", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["cells"]["int8"]["exit_code"] == 2
    assert said["cells"]["fp32"]["failed"] == 0
    last = said["rows"][-1]
    assert (last["kind"], last["table"], last["reason"]) == (
        NOT_MEASURED,
        f"m-{CELLS[1]}",
        said["cells"]["int8"]["error"],
    )
    assert pd.read_csv(said["matrix"]).reason.dropna().tolist() == [last["reason"]]


def test_cells_that_all_fail_are_one_error(tmp_path):
    class Broken(FakeDevice):
        def start(self, kit, arguments):
            if kit is not None:
                raise DeviceError("no power")
            return super().start(kit, arguments)

    found = profile_matrix(Broken(), out=tmp_path, resolutions=[24], calibrate=0)
    assert [str(error) for error in found.outcomes.values()] == ["no power"] * 2
    assert found.profiles == {}
    assert list(tmp_path.glob("*.csv")) == []


@pytest.mark.parametrize(
    ("precision", "line"),
    [
        ("fp32,fp32", "has 'fp32' twice"),
        ("fp32,", "has an empty value"),
        (",", "has an empty value"),
        ("fp32,int4", "'int4' is not supported with onnxruntime; choose from fp32, int8"),
        ("fp16,fp32", "'fp16'"),
        ("fp32,mixed", "is no precision of ops"),
    ],
)
def test_a_bad_list_is_one_line(lab, tmp_path, capsys, precision, line):
    assert main(["--device", "lab:a", "--out", str(tmp_path / "out"), "--precision", precision]) == 2
    captured = capsys.readouterr()
    assert line in captured.err
    assert (captured.err.count("\n"), captured.out) == (1, "")
    assert not (tmp_path / "out").exists()


# --- on this machine -----------------------------------------------------------------------------------------


def command(tmp_path: Path, *more: str) -> list[str]:
    given = words(tmp_path, "--device", "local", "--name", "m", "--no-calibration", "--time-limit", "3s", *more)
    return [sys.executable, "-m", "ofa_profiler.cli.profile", *given]


def journals(tmp_path: Path) -> list[Path]:
    return [tmp_path / "out" / f"m-{cell}.jsonl" for cell in CELLS]


def starts(tmp_path: Path) -> list[str]:
    """The cells in the order in which the agent was started for them."""
    found = []
    for path in journals(tmp_path):
        found += [(device.time, path.stem) for device in read_journal(path)[0].devices]
    return [name.split("-")[2] for _, name in sorted(found)]


def count_visits(path: Path) -> int:
    return path.read_bytes().count(b'"visit"') if path.exists() else 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_they_alternate_and_resume_in_the_middle_of_a_turn(number, tmp_path):
    fp32, int8 = journals(tmp_path)
    process = subprocess.Popen(command(tmp_path), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: count_visits(int8) > 20 or process.poll() is not None)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    codes = {signal.SIGKILL: -9, signal.SIGINT: 130}
    assert process.returncode == codes[number], err
    assert "Traceback" not in err
    before = [path.read_bytes() for path in (fp32, int8)]
    assert before[0].count(b'"visit"') >= 96, "a round of the first cell came before"
    done = subprocess.run(command(tmp_path, "--json"), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    for path, lines in zip((fp32, int8), before, strict=True):
        kept = lines[: lines.rfind(b"\n") + 1]
        assert path.read_bytes().startswith(kept), "nothing was measured twice"
        assert read_journal(path)[0].end is not None
    order = starts(tmp_path)
    assert order[:2] == ["fp32", "int8"]
    # The resumed call begins with the first cell again.
    assert all(one != other for one, other in itertools.pairwise(order[2:])), order
    assert order[2] == "fp32"
    assert set(json.loads(done.stdout)["cells"]) == {"fp32", "int8"}


# --- plans and kits ------------------------------------------------------------------------------------------


def test_the_plan_of_a_list_is_that_of_its_tables(tmp_path, capsys):
    more = ["--device", "local", "--name", "m", "--no-calibration", "--plan"]
    assert main(words(tmp_path, *more, "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    fp32, int8 = said["cells"]["fp32"], said["cells"]["int8"]
    assert {key.partition("-")[0] for key in set(int8["ops"]) - set(fp32["ops"])} == {"quantize", "dequantize"}
    assert (fp32["inferred"], int8["inferred"]) == (0, 0)
    assert said["seconds"]["expected"] == pytest.approx(fp32["seconds"]["expected"] + int8["seconds"]["expected"])
    assert main(words(tmp_path, *more)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(":")] == ["fp32:", "int8:"]
    assert lines[-1].startswith("together: about ")


@pytest.mark.slow
def test_the_plan_of_int8_knows_the_encoding_of_this_machine(tmp_path, capsys):
    out = tmp_path / "out"
    profile("local", out=out, precision="int8", resolutions=[24], name="m", calibrate=0, time_limit_s=1.0)
    given = ["--resolution", "24", "--out", str(out), "--time-limit", "1s", "--no-calibration", "--plan", "--json"]
    for device in ("local", "ssh:board"):
        assert main(["--device", device, "--precision", "int8", "--name", "m", *given]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["complete"], said["models_to_export"]) == (True, 0), device


def test_a_list_makes_a_kit_per_table(tmp_path, capsys):
    kit = tmp_path / "kit"
    given = ["--precision", "fp32,int8", "--resolution", "24", "--kit", str(kit), "--no-calibration", "--json"]
    assert main(given) == 0
    said = json.loads(capsys.readouterr().out)
    assert [Path(document["kit"]).name for document in said["kits"]] == list(CELLS)
    manifests = [json.loads((kit / cell / "manifest.json").read_text()) for cell in CELLS]
    assert [manifest["settings"]["precision"] for manifest in manifests] == ["fp32", "int8"]
    assert "quantize" in {op["kind"] for op in manifests[1]["ops"]}
    assert main(given) == 2
    assert "is not an empty folder" in capsys.readouterr().err
