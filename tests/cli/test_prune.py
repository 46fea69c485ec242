"""`ofa-prune` from a user's function to a pruned network, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

pytest.importorskip("PIL")
from support.paths import ROOT
from support.prunable import write_images, write_network

from ofa_search.cli import prune as prune_cli
from ofa_search.data.images import load_images
from ofa_search.pruning.optimizers import pruning_optimizer_names

QUICK = ["--train-device", "cpu", "--train-threads", "1", "--batch", "16", "--epochs", "3", "--time-limit", "2s"]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network and its images."""
    folder = tmp_path_factory.mktemp("user")
    write_network(folder)
    write_images(folder / "photos")
    return folder


@pytest.fixture
def there(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(scratch)
    yield scratch
    sys.modules.pop("small_nets", None)


def arguments(out: Path, *more: str, model: str = "trained", budget: str | None = None) -> list[str]:
    what = ["--model", f"small_nets:{model}", "--input", "1x3x32x32", "--data", "photos", "--out", str(out)]
    where = [] if "--lut" in more else ["--device", "local"]
    return [*what, *QUICK, "--cache", "cache", *where, *more, "--budget", budget or "1h"]


@pytest.fixture(scope="module")
def whole(scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a budget that the network keeps, with a grid."""
    out = tmp_path_factory.mktemp("whole")
    done = command(scratch, *arguments(out, "--json"))
    assert done.returncode == 0, done.stderr
    assert "the network is within the budget" in done.stderr
    return out


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ofa_search.prune_cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def document(out: Path) -> dict:
    return json.loads((out / "trained.json").read_text())


def top1(path: Path, photos: Path) -> float:
    """By onnxruntime and what the file says alone."""
    session = onnxruntime.InferenceSession(str(path))
    card = session.get_modelmeta().custom_metadata_map
    steps = json.loads(card["preprocessing"])
    images = load_images(photos, split="test")
    assert list(images.classes) == json.loads(card["labels"])
    low, high = steps["range"]
    scaled = low + images.pixels.numpy() * ((high - low) / 255)
    inputs = (scaled - np.reshape(steps["mean"], (3, 1, 1))) / np.reshape(steps["std"], (3, 1, 1))
    name = session.get_inputs()[0].name
    classes = [session.run(None, {name: x[np.newaxis].astype(np.float32)})[0].argmax() for x in inputs]
    return float(np.mean(np.array(classes) == images.labels.numpy()))


def test_the_methods_are_those_of_the_optimizers() -> None:
    assert tuple(pruning_optimizer_names()) == prune_cli.METHODS


def test_a_network_within_the_budget_is_exported_as_it_is(whole: Path, there: Path) -> None:
    found = document(whole)
    assert found["training"] is None
    assert found["before"]["accuracy"] == found["after"]["accuracy"]
    assert found["before"]["params"] == found["after"]["params"]
    assert all(group["before"] == group["after"] for group in found["groups"])
    assert found["after"]["measured_ms"] > 0
    assert {path.name for path in whole.iterdir()} >= {"trained.onnx", "trained.safetensors", "trained-grid.csv"}


@pytest.mark.slow
def test_from_a_function_to_files(whole: Path, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To two thirds of the latency, on this machine, and the same by the grid alone."""
    budget = f"{0.7e3 * document(whole)['before']['measured_ms']:.3f}us"
    words = arguments(tmp_path / "out", "--test-data", "photos", "--json", budget=budget)
    code = prune_cli.main(words)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    found = json.loads(captured.out)
    assert found == document(tmp_path / "out")
    assert found["after"]["measured_ms"] <= found["budget_ms"] < found["before"]["measured_ms"]
    assert found["after"]["macs"] < found["before"]["macs"]
    assert found["after"]["accuracy"]["test"]["top1"] > 0.8
    model = tmp_path / "out" / "trained.onnx"
    assert top1(model, there / "photos") == pytest.approx(found["accuracy"]["test"]["top1"], abs=1e-4)
    sizes = {tuple(tensor.dims) for tensor in onnx.load(model).graph.initializer}
    assert any(size[0] == layer["after"][0] for layer in found["layers"] for size in sizes if size)
    assert found["unprunable"]
    assert found["training"]["images"] + found["training"]["held_out"] == 72

    lut = str(tmp_path / "out" / "trained-grid.csv")
    assert prune_cli.main(arguments(tmp_path / "by-table", "--lut", lut, budget=budget)) == 0
    said = capsys.readouterr().err
    assert "which are not used; nothing is measured" in said
    assert "nothing was measured" in said
    again = document(tmp_path / "by-table")
    assert again["after"]["measured_ms"] is None
    assert again["after"]["predicted_ms"] <= again["budget_ms"]
    assert prune_cli.main(arguments(tmp_path / "by-table", "--lut", lut, budget=budget)) == 0, "it has all it needs"


def test_an_unreachable_budget_is_refused_before_any_training(
    whole: Path, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lut = str(whole / "trained-grid.csv")
    assert prune_cli.main(arguments(tmp_path / "out", "--lut", lut, budget="1us")) == 3
    assert "no pruned network meets" in capsys.readouterr().err
    assert not (tmp_path / "out" / "training.csv").exists()


@pytest.mark.parametrize(
    ("model", "more", "problem"),
    [
        ("two_classes", (), "has 2 outputs, but photos has 3 classes"),
        ("no_classifier", (), r"is no classifier: its output is of the shape \(1, 8, 30, 30\)"),
        ("of_one_size", (), "does not run with an input of 1x3x32x32: RuntimeError: mat1 and mat2"),
        ("missing", (), "AttributeError"),
        ("trained", ("--train-device", "cuda:9"), "--train-device cuda:9"),
    ],
)
def test_what_cannot_be_pruned_is_named(
    model: str, more: tuple[str, ...], problem: str, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert prune_cli.main(arguments(tmp_path / "out", *more, model=model)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ofa-prune: ")]
    assert len(lines) == 1
    assert re.search(problem, lines[0])


def test_an_untrained_network_is_noticed(
    whole: Path, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lut = str(whole / "trained-grid.csv")
    assert prune_cli.main(arguments(tmp_path / "out", "--lut", lut, model="untrained")) == 0
    said = capsys.readouterr().err
    assert "no better than chance before it is pruned: are its outputs the classes 0-dark, 1-middling" in said


def test_the_table_of_another_network(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = ROOT / "latency_tables" / "epyc-cifar-mbv3.csv"
    assert prune_cli.main(arguments(tmp_path / "out", "--lut", str(table))) == 2
    assert "make one by ofa-prune --device" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_in_each_phase_it_resumes(whole: Path, there: Path, tmp_path: Path) -> None:
    """The result is that of a run without interruption."""
    budget = f"{0.7e3 * document(whole)['before']['measured_ms']:.3f}us"
    words = arguments(tmp_path / "out", "--epochs", "20", budget=budget)
    for sign in ("trained-grid.jsonl", "training.csv"):
        started = subprocess.Popen(
            [sys.executable, "-m", "ofa_search.prune_cli", *words],
            cwd=there,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )
        path = tmp_path / "out" / sign
        while not (path.exists() and len(path.read_bytes().splitlines()) > 2):
            assert started.poll() is None
            time.sleep(0.05)
        started.send_signal(signal.SIGKILL)
        started.wait()
    done = command(there, *words)
    assert done.returncode == 0, done.stderr
    assert document(tmp_path / "out")["after"]["measured_ms"] > 0
