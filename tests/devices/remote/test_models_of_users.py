"""`ofa-profile --model` over devices that are not this machine: an emulated board and an emulated phone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from onnx import helper
from support.boards import SimulatedBoard
from support.onnx_nets import INT64, network, saved, weights
from support.phones import Phone
from support.sshd import free_port
from support.tflite_nets import Net, options, packed, widths

from ofa_profiler import LatencyTable
from ofa_profiler.cli.profile import main as ofa_profile
from ofa_profiler.devices.android.python_bundle import get_bundle
from ofa_profiler.errors import DeviceError

pytestmark = pytest.mark.slow
QUICK = ("--time-limit", "1s")
#: Valid for the table of 30 rows, and unlike all that is made up.
IDS = np.array([29, 0, 7, 7, 3] * 60)


@pytest.fixture(scope="module")
def board(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedBoard]:
    with SimulatedBoard(shared_dir / "devices" / "sim", tmp_path_factory.mktemp("sim")) as board:
        yield board


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with pytest.MonkeyPatch.context() as patch, Phone(tmp_path_factory.mktemp("phone")) as phone:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        try:
            get_bundle()
        except DeviceError as error:
            pytest.skip(f"needs the internet, once: {error}")
        yield phone


def as_onnx(folder: Path) -> Path:
    """Rows of a table by an open number of indices, and two products that are long enough for blocks of their own."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], "look"),
        helper.make_node("MatMul", ["rows", "w"], ["h"], "wider"),
        helper.make_node("Relu", ["h"], ["r"], "act"),
        helper.make_node("MatMul", ["r", "v"], ["y"], "narrower"),
    ]
    constants = [weights("table", 30, 64), weights("w", 64, 200), weights("v", 200, 64)]
    return saved(network(nodes, {"ids": (INT64, ["tokens"])}, ["y"], constants), folder, "net.onnx")


def as_tflite(folder: Path) -> Path:
    net = Net()
    net.tensor("ids", (-1,), "int64")
    net.weights("table", 30, 64)
    net.add("CAST", ["ids"], "short", (-1,), dtype="int32", options=options("CastOptions"))
    net.add("GATHER", ["table", "short"], "rows", (-1, 64), options=options("GatherOptions"))
    path = folder / "net.tflite"
    path.write_bytes(packed(["ids"], [widths(net, "rows", {"a": (64, 200), "b": (200, 64)}, -1)], net))
    return path


def exact_values(root: Path) -> set[tuple[int, ...]]:
    """The files of 64-bit values on a device, as far as they are as long as the input."""
    files = [path.read_bytes() for path in root.rglob("kits/*/models/*.bin")]
    return {tuple(np.frombuffer(data, "<i8")) for data in files if len(data) == 8 * len(IDS)}


def check(path: Path) -> LatencyTable:
    """Every block has a time, and the sum is theirs."""
    table = LatencyTable.load(path)
    assert all(row.status == "ok" and row.median_ms for row in table.rows)
    assert table.metadata["sum_ms"] == pytest.approx(sum(row.median_ms or 0.0 for row in table.rows))
    assert table.metadata["whole_ms"] > 0
    assert table.metadata["model"]["inputs"] == {"ids": ["int64", len(IDS)]}
    return table


@pytest.mark.long
def test_two_files_on_two_devices_at_once(board, phone, tmp_path, monkeypatch, capsys):
    host_key = board.reached_from(tmp_path, monkeypatch)
    np.savez(tmp_path / "in.npz", ids=IDS)
    words = ["--device", "ssh:board", "--device", phone.spec, "--accept-host-key", host_key, *QUICK]
    words += ["--model", str(as_onnx(tmp_path)), "--model", str(as_tflite(tmp_path))]
    words += ["--inputs", str(tmp_path / "in.npz"), "--out", str(tmp_path / "out"), "--json"]
    assert ofa_profile(words) == 0, capsys.readouterr().err
    names = sorted(path.stem for path in (tmp_path / "out").glob("*.csv") if not path.stem.endswith("-matrix"))
    assert len(names) == 4
    assert len({name.rpartition("-net-")[0] for name in names}) == 2, names
    for name in names:
        profiled = check(tmp_path / "out" / f"{name}.csv").metadata["runtime_profile"]
        assert (profiled is None) == ("litert" in name)
        assert profiled is None or profiled["named_share"] >= 0.95
    matrices = [pd.read_csv(path) for path in (tmp_path / "out").glob("*-matrix.csv")]
    assert len(matrices) == 2
    for matrix in matrices:
        assert matrix[matrix["kind"] == "network"]["median_ms"].notna().sum() == 2
    assert exact_values(board.root / "home" / "pi") == exact_values(phone.root / "data") == {tuple(IDS)}


def test_a_kit_with_its_runtime_by_hand_on_the_board(board, tmp_path, capsys):
    np.savez(tmp_path / "in.npz", ids=IDS)
    kit = board.root / "home" / "pi" / "by-hand"
    words = ["--model", str(as_onnx(tmp_path)), "--inputs", str(tmp_path / "in.npz"), "--wheels", "aarch64-cp311"]
    assert ofa_profile(["--kit", str(tmp_path / "kit"), *words, *QUICK]) == 0, capsys.readouterr().err
    subprocess.run(["cp", "-r", str(tmp_path / "kit"), str(kit)], check=True)
    subprocess.run(["chown", "-R", "1000:1000", str(kit)], check=True)
    login = ["ssh", "-i", board.key, "-p", str(board.port), "-o", "StrictHostKeyChecking=no", "pi@127.0.0.1"]
    login[1:1] = ["-o", f"UserKnownHostsFile={tmp_path / 'known'}", "-o", "BatchMode=yes"]
    subprocess.run([*login, "cd by-hand && python3 agent.py --kit ."], check=True, capture_output=True, timeout=600)
    out = tmp_path / "out"
    assert ofa_profile(["--import", str(kit / "results.jsonl"), "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] == document["ops"] > 1
    assert check(Path(document["table"])).metadata["runtime_profile"]["named_share"] >= 0.95
