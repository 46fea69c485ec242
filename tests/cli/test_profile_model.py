"""`ofa-profile --model`: a user's network, as a whole and block by block, on this machine and through a kit."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from onnx import helper
from support.onnx_nets import FLOAT, convolutions, network, saved, weights
from support.referees import REFEREES

from ofa_profiler import LatencyTable, profile
from ofa_profiler.cli.profile import main
from ofa_profiler.cli.verify import main as verify
from ofa_profiler.errors import UsageError
from ofa_search.cli.search import main as search

QUICK = ("--time-limit", "1s")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFA_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six equal convolutions of 48 channels, each long enough for a block of its own."""
    return saved(convolutions(6, channels=48, size=48), tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="module")
def table(net: Path, tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    out = tmp_path_factory.mktemp("out")
    assert main(["--device", "local", "--out", str(out), "--name", "mine", "--model", str(net), *QUICK]) == 0
    return LatencyTable.load(out / "mine.csv")


def test_a_row_per_block_in_order_of_execution(table, net):
    frame = pd.read_csv(table.path)
    assert frame["place"].tolist() == list(range(1, len(frame) + 1))
    assert len(frame) >= 5
    about = table.metadata
    assert about["model"]["file"] == "net.onnx"
    assert about["model"]["sha256"] == hashlib.sha256(net.read_bytes()).hexdigest()
    assert (about["runtime"], about["precision"], about["spaces"]) == ("onnxruntime", "fp32", [])
    assert frame["macs"].sum() >= 6 * 48 * 48 * 48 * 48 * 9
    assert frame["kernels"].sum() == len(about["runtime_profile"]["kernels"])
    assert about["sum_ms"] == pytest.approx(frame["median_ms"].sum())
    assert frame["share"].sum() == pytest.approx(1, abs=1e-3)
    assert about["whole_ms"] == about["whole"]["median_ms"] > 0
    assert about["runtime_profile"]["named_share"] == 1
    assert frame["runtime_ms"].sum() == pytest.approx(about["runtime_profile"]["named_ms"], rel=1e-3)


def test_equal_blocks_are_measured_once(table):
    medians = [row.median_ms for row in table.rows if row.description.kind.startswith("Conv")]
    assert len(set(medians)) < len(medians)
    assert not [text for text in table.warnings if "copied" in text]


def test_a_finished_table_is_up_to_date_and_follows_from_its_journal(table, net, capsys):
    words = ["--device", "local", "--out", str(table.path.parent), "--name", "mine", "--model", str(net), *QUICK]
    before = table.path.read_text(), table.path.with_suffix(".json").read_text()
    assert main(words) == 0
    assert "up to date" in capsys.readouterr().err
    table.path.unlink()
    table.path.with_suffix(".json").unlink()
    assert main(words) == 0
    assert (table.path.read_text(), table.path.with_suffix(".json").read_text()) == before


def test_the_json_document_and_the_words(table, net, capsys):
    words = ["--device", "local", "--out", str(table.path.parent), "--name", "mine", "--model", str(net), "--json"]
    assert main([*words, *QUICK]) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["whole_ms"] == table.metadata["whole_ms"]
    assert document["sum_ms"] == table.metadata["sum_ms"]
    assert f"{len(table.rows)} blocks, measured alone, add up to" in said.err
    assert "of the time in the runtime's own profile" in said.err


@pytest.mark.parametrize("command", [search, verify])
def test_other_commands_refuse_the_table(command, table, capsys):
    words = ["--lut", str(table.path), *(["--budget", "1ms"] if command is search else ["--device", "local"])]
    assert command(words) == 2
    assert "is the table of the model net.onnx, not of a search space" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--space", "cifar-mbv3"], "--space is for search spaces"),
        (["--resolution", "32"], "--resolution is for search spaces"),
        (["--batch", "2"], "--batch is for search spaces"),
        (["--calibrate", "20"], "--calibrate is for search spaces"),
        (["--no-calibration"], "--no-calibration is for search spaces"),
        (["--precision", "int8"], "net.onnx is a model for onnxruntime in fp32, which is not asked for"),
        (["--runtime", "litert"], "models are not converted"),
        (["--shape", "y=1x2"], "the model has no input 'y'"),
        (["--shape", "x=1x48x48x47"], "'x' has the shape"),
        (["--inputs", "none.npz"], "there is no such file"),
        (["--model", "net.pb"], "there is no such file"),
    ],
)
def test_what_is_refused_in_one_line(more, words, net, tmp_path, capsys):
    given = ["--model", str(net)] if "--model" not in more else []
    assert main(["--device", "local", "--out", str(tmp_path), *given, *more]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--shape", "--inputs", "--rewrite", "--what-if"])
def test_options_of_models_need_a_model(option, tmp_path, capsys):
    value = [] if option == "--what-if" else ["1x2"]
    assert main(["--device", "local", "--out", str(tmp_path), option, *value]) == 2
    assert f"{option} needs --model" in capsys.readouterr().err


def test_a_kit_is_measured_by_hand_and_imported(net, tmp_path, capsys):
    kit = tmp_path / "kit"
    assert main(["--kit", str(kit), "--model", str(net), *QUICK]) == 0
    subprocess.run([sys.executable, "agent.py", "--kit", "."], cwd=kit, check=True, capture_output=True, timeout=100)
    capsys.readouterr()
    assert main(["--import", str(kit / "results.jsonl"), "--out", str(tmp_path / "out")]) == 0
    assert "results-networks" not in capsys.readouterr().err
    (path,) = (tmp_path / "out").glob("*.csv")
    assert path.stem.endswith("-net")
    table = LatencyTable.load(path)
    assert table.metadata["runtime_profile"]["named_share"] > 0.95
    assert [row.op for row in table.rows][-1]


def test_a_plan_measures_nothing(net, tmp_path, capsys):
    assert main(["--device", "local", "--out", str(tmp_path / "out"), "--model", str(net), "--plan", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["distinct"] < len(document["blocks"])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_cells_of_threads_and_what_has_no_file(net, tmp_path, capsys):
    words = ["--device", "local", "--out", str(tmp_path), "--name", "n", "--model", str(net), "--threads", "1,2"]
    assert main([*words, "--precision", "fp32,int8", *QUICK]) == 0
    said = capsys.readouterr()
    assert "no --model is for onnxruntime in int8: models are not converted" in said.err
    matrix = pd.read_csv(tmp_path / "n-matrix.csv")
    networks = matrix[matrix["kind"] == "network"].set_index("table")
    measured = networks.index[networks["median_ms"].notna()].tolist()
    cores = len(os.sched_getaffinity(0))
    assert measured == [f"n-onnxruntime-fp32-t{count}" for count in (1, 2) if count <= cores]
    assert all((tmp_path / f"{name}.csv").exists() for name in measured)


def test_the_file_is_never_changed(net, tmp_path):
    before = net.read_bytes(), net.stat().st_mtime_ns
    assert main(["--device", "local", "--out", str(tmp_path), "--model", str(net), "--plan"]) == 0
    assert (net.read_bytes(), net.stat().st_mtime_ns) == before


def test_python_takes_bytes_and_refuses_arguments_of_spaces(tmp_path):
    data = convolutions(2).SerializeToString()
    found = profile(model=data, out=tmp_path, time_limit_s=1.0)
    assert found.path.stem.endswith("-model")
    assert (tmp_path / "model.onnx").read_bytes() == data
    with pytest.raises(UsageError, match="resolutions is for search spaces"):
        profile(model=data, out=tmp_path, resolutions=[32])


def test_a_network_without_faster_forms_is_not_written(net, tmp_path, capsys):
    out = tmp_path / "fast.onnx"
    words = ["--device", "local", "--model", str(net), "--rewrite", str(out), *QUICK]
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["rewrite"]["file"] is None
    assert "nothing is written" in said.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("out", "more", "words"),
    [
        ("net.onnx", [], "is the input file, which is never changed"),
        ("net.tflite", [], "give a file with this suffix"),
        ("fast.onnx", ["--threads", "1,2"], "--rewrite needs one --device, one --model and one number of --threads"),
    ],
)
def test_a_wrong_rewrite_is_refused(out, more, words, net, capsys):
    given = ["--device", "local", "--model", str(net), "--rewrite", str(net.with_name(out)), *more]
    assert main(given) == 2
    assert words in capsys.readouterr().err


def test_what_changes_would_save(tmp_path, capsys):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("HardSwish", ["c"], ["h"], "swish"),
        helper.make_node("Conv", ["h", "d"], ["y"], "depthwise", pads=[3, 3, 3, 3], group=24),
    ]
    constants = [weights("w", 24, 24, 3, 3), weights("d", 24, 1, 7, 7)]
    path = saved(network(nodes, {"x": (FLOAT, [1, 24, 40, 40])}, ["y"], constants), tmp_path)
    words = ["--device", "local", "--out", str(tmp_path / "out"), "--name", "t", "--model", str(path), "--what-if"]
    assert main([*words, "--time-limit", "2s", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    changes = [found["change"] for found in document["what_if"]]
    assert any("ReLU" in change for change in changes)
    assert any("7" in change and "5" in change for change in changes)
    saved_ms = [found["saved_ms"] for found in document["what_if"]]
    assert saved_ms == sorted(saved_ms, reverse=True)
    table = LatencyTable.load(tmp_path / "out" / "t.csv")
    assert table.metadata["what_if"] == document["what_if"]
    assert (tmp_path / "out" / "t-what-if.jsonl").exists()


TORCH = """
import torch

def small():
    layers = torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(14400, 7)
    return torch.nn.Sequential(*layers)

def wrong():
    raise RuntimeError("two\\nlines")
"""


@pytest.mark.slow
def test_a_torch_module_by_its_name(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    (tmp_path / "my_nets.py").write_text(TORCH)
    monkeypatch.chdir(tmp_path)
    words = ["--device", "local", "--out", str(tmp_path / "out"), *QUICK, "--model"]
    assert main([*words, "my_nets:small", "--shape", "1x3x32x32"]) == 0
    assert (tmp_path / "out" / "small.onnx").exists()
    assert "small.onnx: " in capsys.readouterr().err
    assert main([*words, "my_nets:small", "--shape", "1x3x32x32"]) == 0
    assert "up to date" in capsys.readouterr().err
    for name, why in (("wrong", "RuntimeError: two lines"), ("none", "has no attribute 'none'")):
        assert main([*words, f"my_nets:{name}", "--shape", "1x3x32x32"]) == 2
        assert why in capsys.readouterr().err
    assert main([*words, "my_nets:small"]) == 2
    assert "give --shape input=" in capsys.readouterr().err


def test_a_torch_module_in_python_with_several_inputs(tmp_path):
    torch = pytest.importorskip("torch")

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = torch.nn.Embedding(50, 64), torch.nn.Linear(64, 64)

        def forward(self, ids, scale, unused=None):
            return self.out(self.table(ids) * scale)

    found = profile(
        model=Both(),
        shapes={"scale": (1, 40, 64)},
        inputs={"ids": np.arange(40)[None]},
        out=tmp_path,
        time_limit_s=1.0,
    )
    inputs = found.table.metadata["model"]["inputs"]
    assert inputs == {"ids": ["int64", 1, 40], "scale": ["float32", 1, 40, 64]}
    assert found.table.metadata["model"]["file"] == "Both.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("name", REFEREES)
def test_networks_that_no_one_here_made(name, tmp_path):
    """Every network has a whole table. The figures are those of benchmarks/referees.py."""
    referee = REFEREES[name]
    path = referee.path
    arrays = {key: np.asarray(value) for key, value in referee.arrays.items()}
    words = ["--device", "local", "--out", str(tmp_path), "--name", "r", "--model", str(path), "--time-limit", "1s"]
    if arrays:
        np.savez(tmp_path / "in.npz", **arrays)
        words += ["--inputs", str(tmp_path / "in.npz")]
    for shape in referee.shapes:
        words += ["--shape", shape]
    before = path.read_bytes()
    assert main(words) == 0
    assert path.read_bytes() == before
    table = LatencyTable.load(tmp_path / "r.csv")
    assert all(row.status == "ok" for row in table.rows)
    assert table.metadata["sum_ms"] == pytest.approx(sum(row.median_ms for row in table.rows))
    profiled = table.metadata["runtime_profile"]
    assert (profiled is None) == (path.suffix == ".tflite")
    assert profiled is None or profiled["named_share"] >= 0.95
