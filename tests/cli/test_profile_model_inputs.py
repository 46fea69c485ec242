"""`ofa-profile --model`: what the inputs of a network get, and networks without anything to measure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from support.onnx_nets import FLOAT, INT64, constant, convolutions, network, saved, weights

from ofa_profiler import LatencyTable
from ofa_profiler.cli.profile import main

QUICK = ("--time-limit", "1s")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFA_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def lookup(folder: Path) -> Path:
    """A table of 30 rows, looked up by indices of an open number."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], "look"),
        helper.make_node("MatMul", ["rows", "w"], ["y"], "product"),
    ]
    constants = [weights("table", 30, 64), weights("w", 64, 64)]
    return saved(network(nodes, {"ids": (INT64, ["batch", "tokens"])}, ["y"], constants), folder, "lookup.onnx")


def test_open_dimensions_are_asked_for_and_indices_are_valid(tmp_path, capsys):
    path = lookup(tmp_path)
    words = ["--device", "local", "--out", str(tmp_path / "out"), "--model", str(path), *QUICK]
    assert main(words) == 2
    assert "'ids' has the open shape batchxtokens: give --shape ids=NxN" in capsys.readouterr().err
    assert main([*words, "--shape", "2x500"]) == 0
    (path,) = (tmp_path / "out").glob("*.csv")
    assert json.loads(path.with_suffix(".json").read_text())["model"]["inputs"] == {"ids": ["int64", 2, 500]}


def test_invalid_values_are_refused_with_the_reason(tmp_path, capsys):
    np.savez(tmp_path / "in.npz", ids=np.full((1, 5), 99))
    words = ["--model", str(lookup(tmp_path)), "--inputs", str(tmp_path / "in.npz"), "--out", str(tmp_path / "out")]
    assert main(["--device", "local", *words]) == 2
    said = capsys.readouterr().err
    assert "onnxruntime cannot run" in said
    assert len(said.strip().splitlines()) == 1


def test_other_values_of_an_input_are_another_measurement(tmp_path, capsys):
    """Shapes are equal, but values can decide what a network does."""
    words = ["--device", "local", "--model", str(lookup(tmp_path)), "--inputs", str(tmp_path / "in.npz")]
    words += ["--out", str(tmp_path / "out"), "--name", "n", *QUICK]
    np.savez(tmp_path / "in.npz", ids=np.zeros((1, 400), np.int64))
    assert main(words) == 0
    before = (tmp_path / "out" / "n.jsonl").read_bytes()
    np.savez(tmp_path / "in.npz", ids=np.arange(400).reshape(1, 400) % 30)
    capsys.readouterr()
    assert main(words) == 2
    assert "other values of the input 'ids'" in capsys.readouterr().err
    assert (tmp_path / "out" / "n.jsonl").read_bytes() == before
    np.savez(tmp_path / "in.npz", ids=np.zeros((1, 400), np.int64))
    assert main(words) == 0
    assert "up to date" in capsys.readouterr().err


EMPTY = network(
    [helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["found"])],
    {"boxes": (FLOAT, [1, 9, 4]), "scores": (FLOAT, [1, 2, 9])},
    ["found"],
    [constant("most", [5]), constant("overlap", [0.5], "float32"), constant("least", [2.0], "float32")],
)
EMPTY.graph.output[0].type.tensor_type.elem_type = INT64
CONSTANT = network([helper.make_node("Constant", [], ["y"], value_floats=[1.0])], {}, ["y"])


@pytest.mark.parametrize(
    ("model", "arrays", "words"),
    [
        (EMPTY, {}, "no output of net.onnx is a tensor of numbers with elements"),
        (CONSTANT, {}, "net.onnx has no inputs"),
        (convolutions(2, size="n"), {"x": np.ones((1, 16, 0, 0), np.float32)}, "'x' has no elements"),
    ],
)
def test_networks_without_anything_to_measure_are_refused(model, arrays, words, tmp_path, capsys):
    path, out = saved(model, tmp_path), tmp_path / "out"
    np.savez(tmp_path / "in.npz", **arrays)
    more = ["--inputs", str(tmp_path / "in.npz")] if arrays else []
    assert main(["--device", "local", "--out", str(out), "--model", str(path), *more]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.strip().splitlines()) == 1
    assert not out.exists() or not list(out.iterdir())


def test_outputs_whose_shape_no_one_knows_before_the_run(tmp_path):
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["parts"], "split", axis=0),
        helper.make_node("SequenceAt", ["parts", "second"], ["part"], "at"),
        helper.make_node("MatMul", ["part", "w"], ["y"], "product"),
    ]
    constants = [constant("second", 1), weights("w", 8, 8)]
    path = saved(network(nodes, {"x": (FLOAT, [4, 8])}, ["y"], constants, opset=13), tmp_path)
    out = tmp_path / "out"
    assert main(["--device", "local", "--out", str(out), "--name", "n", "--model", str(path), *QUICK]) == 0
    (row,) = LatencyTable.load(out / "n.csv").rows
    assert row.status == "ok"
