"""`ofa-profile` with lists of runtimes, precisions and threads: a table per combination, or the reason why not."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from ofa_profiler import LatencyTable, profile_matrix
from ofa_profiler.base.registry import Registry
from ofa_profiler.cli.profile import main
from ofa_profiler.devices import DeviceKind, FakeDevice
from ofa_profiler.devices import registry as device_registry
from ofa_profiler.devices.local import LocalDevice
from ofa_profiler.errors import DeviceError, UsageError

LISTS = ["--runtime", "onnxruntime,litert", "--precision", "fp32,int8", "--threads", "1,8"]
RUNTIMES, PRECISIONS = ("onnxruntime", "litert"), ("fp32", "int8")
MADE = [f"{runtime}-{precision}-t1" for runtime in RUNTIMES for precision in PRECISIONS]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFA_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


class Lab(FakeDevice):
    """A device without LiteRT, if its name says so."""

    def prepare_runtime(self, runtime, at_most=None):
        if runtime == "litert" and "bare" in self.spec:
            raise DeviceError(f"device {self.spec}: litert does not run here")
        return


@pytest.fixture(autouse=True)
def lab(monkeypatch):
    kinds: Registry[DeviceKind] = Registry("kind of device")
    kinds.add("lab", DeviceKind("lab", lambda spec, _: Lab(spec=spec), "lab:ADDRESS"))
    kinds.add("local", DeviceKind("local", lambda _spec, options: LocalDevice(options), "local"))
    monkeypatch.setattr(device_registry, "_KINDS", kinds)


def run(out: Path, *more: str) -> int:
    return main(["--resolution", "24", "--out", str(out), "--name", "m", "--no-calibration", *more])


@pytest.mark.slow
def test_a_table_per_combination_and_the_reason_of_the_others(tmp_path, capsys):
    assert run(tmp_path, "--device", "lab:a", *LISTS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:6] == ["gain", "of", "network", "ms", "network", "mbconv"]
    assert [line.split()[0] for line in lines[1:5]] == MADE
    assert [line.partition(": ")[0] for line in lines[5:]] == [
        f"{runtime}-{precision}-t8" for runtime in RUNTIMES for precision in PRECISIONS
    ]
    assert lines[5].endswith(": not measured: device lab:a: 8 threads were requested, but it allows 4 cores")
    assert {path.stem for path in tmp_path.glob("*.csv")} == {"m-matrix", *(f"m-{name}" for name in MADE)}
    for name in MADE:
        table = LatencyTable.load(tmp_path / f"m-{name}.csv")
        said = [table.metadata[field] for field in ("runtime", "precision", "threads")]
        assert "{}-{}-t{}".format(*said) == name
    before = (tmp_path / "m-matrix.csv").read_bytes()
    assert run(tmp_path, "--device", "lab:a", *LISTS, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["cells"])[:2] == ["onnxruntime-fp32-t1", "onnxruntime-fp32-t8"]
    assert all(said["cells"][name]["was_complete"] for name in MADE)
    assert said["cells"]["litert-int8-t8"]["exit_code"] == 2
    assert (tmp_path / "m-matrix.csv").read_bytes() == before


@pytest.mark.slow
def test_a_device_without_a_runtime_measures_the_other(tmp_path, capsys):
    lists = ["--runtime", "litert,onnxruntime", "--device", "lab:a", "--device", "lab:bare", "--name", "n"]
    assert run(tmp_path, *lists, "--json") == 0
    devices = json.loads(capsys.readouterr().out)["devices"]
    assert "error" not in devices["lab:a"]["cells"]["litert"]
    assert devices["lab:bare"]["cells"]["litert"] == {
        "error": "device lab:bare: litert does not run here",
        "exit_code": 4,
    }
    frame = pd.read_csv(tmp_path / "n-matrix.csv")
    assert list(frame.reason.dropna()) == ["device lab:bare: litert does not run here"]
    assert set(frame.base.dropna()) == {"n-onnxruntime-fp32-t1"}


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--device", "lab:bare", "--runtime", "litert", "--threads", "1,8"], 4),
        (["--device", "lab:a", "--threads", "8,16"], 2),
        (["--device", "lab:bare", "--runtime", "litert", "--threads", "1,2"], 4),
    ],
)
def test_without_any_table_the_code_says_whose_fault_it_is(tmp_path, capsys, more, code):
    assert run(tmp_path, *more) == code
    captured = capsys.readouterr()
    assert "ofa-profile: " in captured.err
    assert captured.out == ""
    assert not list(tmp_path.glob("*.csv"))


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--threads", "1,1"], "has a number twice"),
        (["--threads", "1,"], "'' is not a whole number"),
        (["--threads", "0,1"], "'0' is not a whole number"),
        (["--runtime", "litert,litert"], "has 'litert' twice"),
        (["--runtime", "litert,tvm"], "tvm"),
        (["--runtime", "litert,onnxruntime", "--precision", "fp32,int4"], "'int4' is not supported"),
        (["--runtime", "litert,onnxruntime", "--runtime-version", "1.20"], "--runtime-version is the release of one"),
        (["--threads", "2,4", "--cores", "0"], "2 threads were requested, but --cores names 1 core"),
    ],
)
def test_what_is_impossible_for_all_is_refused_at_once(tmp_path, capsys, more, line):
    assert run(tmp_path / "out", "--device", "lab:a", *more) == 2
    captured = capsys.readouterr()
    assert line in captured.err
    assert (captured.err.count("\n"), captured.out) == (1, "")
    assert not (tmp_path / "out").exists()


def test_a_plan_and_kits_have_all_cells(tmp_path, capsys):
    given = ["--device", "local", "--threads", "1,1000", "--runtime", "onnxruntime,litert", "--plan"]
    assert run(tmp_path, *given, "--json") == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert list(cells) == ["onnxruntime-t1", "onnxruntime-t1000", "litert-t1", "litert-t1000"]
    assert ["error" in document for document in cells.values()] == [False, True, False, True]
    assert run(tmp_path, *given) == 0
    assert "litert-t1000: not measured: device local: 1000 threads" in capsys.readouterr().out
    kit = tmp_path / "kit"
    given = ["--kit", str(kit), "--runtime", "onnxruntime,litert", "--threads", "1,2", "--json"]
    assert main([*given, "--resolution", "24", "--no-calibration"]) == 0
    kits = [Path(document["kit"]) for document in json.loads(capsys.readouterr().out)["kits"]]
    assert [path.name for path in kits] == [f"{r}-fp32-t{n}" for r in ("onnxruntime", "litert") for n in (1, 2)]
    settings = [json.loads((path / "manifest.json").read_text())["settings"] for path in kits]
    assert [(each["runtime"], each["threads"]) for each in settings] == [
        ("onnxruntime", 1),
        ("onnxruntime", 2),
        ("litert", 1),
        ("litert", 2),
    ]


def test_lists_in_python(tmp_path):
    how = {"resolutions": [24], "calibrate": 0, "name": "m"}
    found = profile_matrix(
        FakeDevice(), out=tmp_path, precisions=["fp32"], runtimes=["litert", "onnxruntime"], threads=[1, 2], **how
    )
    assert list(found.profiles) == ["litert-t1", "litert-t2", "onnxruntime-t1", "onnxruntime-t2"]
    assert {row.base for row in found.matrix} == {"m-litert-fp32-t1"}
    old = profile_matrix(FakeDevice(), out=tmp_path, runtime="litert", threads=2, precisions=["fp32"], **how)
    assert old.profiles["fp32"].was_complete
    with pytest.raises(UsageError, match=r"^threads '1,1' has '1' twice"):
        profile_matrix(FakeDevice(), out=tmp_path, threads=[1, 1])


@pytest.mark.slow
def test_on_this_machine(tmp_path, capsys):
    lists = ["--runtime", "onnxruntime,litert", "--threads", "1,1000", "--provider", "CPU", "--time-limit", "1s"]
    assert run(tmp_path, "--device", "local", *lists, "--json") == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert "has no provider 'CPU' on this device" in cells["onnxruntime-t1"]["error"]
    assert cells["litert-t1"]["failed"] == 0
    assert "1000 threads" in cells["litert-t1000"]["error"]
