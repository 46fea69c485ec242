"""`ofa-prune` from a user's function to a pruned network, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

pytest.importorskip("PIL")
from support.paths import ROOT
from support.prunable import fake_device, made_up_ms
from support.prune_runs import arguments, check_pruned, document

from ofa_profiler.devices import FakeDevice
from ofa_search import load_pruned
from ofa_search.cli import prune as prune_cli
from ofa_search.data.images import load_images
from ofa_search.pruning.optimizers import pruning_optimizer_names


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--device local` measures nothing, and gives made-up times."""
    monkeypatch.setattr("ofa_profiler.devices.open_device", lambda *_: fake_device())


@pytest.fixture
def grid(there: Path, fake: None, capsys: pytest.CaptureFixture[str]) -> Path:
    """The grid of a run that the network needs no pruning for."""
    path = there / "grid" / "trained-grid.csv"
    if not path.exists():
        assert prune_cli.main(arguments(path.parent)) == 0
        assert "the network is within the budget of 3.6e+06 ms: nothing is pruned" in capsys.readouterr().err
    return path


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


@pytest.mark.slow
def test_a_network_within_the_budget_is_exported_as_it_is(grid: Path) -> None:
    found = document(grid.parent)
    assert found["training"] is None
    assert found["before"]["accuracy"] == found["after"]["accuracy"]
    assert found["before"]["params"] == found["after"]["params"]
    assert all(group["before"] == group["after"] for group in found["groups"])
    assert found["after"]["measured_ms"] > 0
    assert {path.name for path in grid.parent.iterdir()} >= {"trained.onnx", "trained.safetensors", "trained-grid.csv"}


@pytest.mark.slow
def test_from_a_function_to_files(there: Path, fake: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the device, and by its grid alone."""
    out = tmp_path / "out"
    code = prune_cli.main(arguments(out, "--test-data", "photos", "--json", budget="200us"))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    found = json.loads(captured.out)
    assert found == document(out)
    check_pruned(found)
    assert found["training"]["images"] + found["training"]["held_out"] == 72
    assert found["unprunable"]
    assert top1(out / "trained.onnx", there / "photos") == pytest.approx(found["accuracy"]["test"]["top1"], abs=1e-4)
    check_loaded(out, found)
    assert prune_cli.main(arguments(out, budget="210us")) == 2, "the folder is that of another budget"

    words = arguments(tmp_path / "by-table", "--lut", str(out / "trained-grid.csv"), budget="200us")
    assert prune_cli.main(words) == 0
    said = capsys.readouterr().err
    assert "which are not used; nothing is measured" in said
    assert "nothing was measured" in said
    again = document(tmp_path / "by-table")
    assert again["after"]["measured_ms"] is None
    assert again["after"]["predicted_ms"] <= again["budget_ms"]
    assert prune_cli.main(words) == 0, "all is there"
    assert document(tmp_path / "by-table") == again


def check_loaded(out: Path, found: dict[str, Any]) -> None:
    """`load_pruned` makes the network of the ONNX file out of the user's function."""
    module = load_pruned(out)
    assert sum(tensor.numel() for tensor in module.parameters()) == found["after"]["params"]
    inputs = torch.randn(1, 3, 32, 32)
    session = onnxruntime.InferenceSession(str(out / "trained.onnx"))
    (outputs,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(module(inputs).numpy(), outputs, atol=1e-5 * np.abs(outputs).max())


@pytest.mark.slow
def test_over_the_budget_when_measured_all_is_written(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slower(key: str) -> float:
        return 0.5 if key == "after" else made_up_ms(key)

    monkeypatch.setattr("ofa_profiler.devices.open_device", lambda *_: FakeDevice(latency_ms=slower))
    assert prune_cli.main(arguments(tmp_path / "out", budget="200us")) == 5
    assert "which is over the budget of 0.2 ms; all files are written" in capsys.readouterr().err
    assert document(tmp_path / "out")["after"]["measured_ms"] == pytest.approx(0.5, rel=0.1)


@pytest.mark.slow
def test_an_unreachable_budget_is_refused_before_any_training(
    grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune_cli.main(arguments(tmp_path / "out", "--lut", str(grid), budget="1us")) == 3
    assert "no pruned network meets" in capsys.readouterr().err
    assert not (tmp_path / "out" / "training.csv").exists()


@pytest.mark.parametrize(
    ("model", "more", "problem"),
    [
        ("two_classes", (), "has 2 outputs, but photos has 3 classes"),
        ("no_classifier", (), r"is no classifier: its output is of the shape \(1, 8, 30, 30\)"),
        ("of_one_size", (), "does not run with an input of 1x3x32x32: RuntimeError: mat1 and mat2"),
        ("missing", (), "AttributeError"),
        ("half", (), "small_nets:half has weights of float16: return module.float"),
        ("damaged", (), "outputs that are not finite"),
        ("without_weights", (), "has no weights"),
        ("trained", ("--train-device", "cuda:9"), "--train-device cuda:9"),
        ("with_softplus", ("--runtime", "litert"), "for litert: layer 1: the operator softplus cannot be converted"),
    ],
)
def test_what_cannot_be_pruned_is_named(
    model: str, more: tuple[str, ...], problem: str, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune_cli.main(arguments(tmp_path / "out", *more, model=model)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ofa-prune: ")]
    assert len(lines) == 1
    assert re.search(problem, lines[0])


@pytest.mark.slow
def test_an_untrained_network_is_noticed(grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune_cli.main(arguments(tmp_path / "out", "--lut", str(grid), model="untrained")) == 0
    said = capsys.readouterr().err
    assert "no better than chance before it is pruned: are its outputs the classes 0-dark, 1-middling" in said


def test_the_table_of_another_network(there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = ROOT / "latency_tables" / "epyc-cifar-mbv3.csv"
    assert prune_cli.main(arguments(tmp_path / "out", "--lut", str(table))) == 2
    assert "make one by ofa-prune --device" in capsys.readouterr().err


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ofa_search.prune_cli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, lines: int, process: subprocess.Popen[str]) -> None:
    while not (path.exists() and len(path.read_bytes().splitlines()) >= lines):
        assert process.poll() is None
        time.sleep(0.02)


@pytest.mark.long
def test_interrupted_in_each_phase_it_resumes(there: Path, tmp_path: Path) -> None:
    """Killed while it measures, ended by Ctrl-C while it trains, and finished."""
    out = tmp_path / "out"
    assert command(there, *arguments(tmp_path / "whole")).returncode == 0
    whole_ms = document(tmp_path / "whole")["before"]["measured_ms"]
    words = arguments(out, "--epochs", "60", budget=f"{0.67e3 * whole_ms:.3f}us")
    process = started(there, *words)
    wait_for(out / "trained-grid.jsonl", 4, process)
    process.kill()
    process.communicate()
    process = started(there, *words)
    wait_for(out / "training.csv", 2, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "ofa-prune: interrupted; run the same command again to resume"
    measured = (out / "trained-grid.jsonl").read_bytes()
    done = command(there, *words)
    assert done.returncode == 0, done.stderr
    assert (out / "trained-grid.jsonl").read_bytes() == measured
    check_pruned(document(out))


@pytest.mark.slow
def test_several_processes(there: Path, grid: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "ofa_search.prune_cli"),
            *arguments(tmp_path / "out", "--lut", str(grid), budget="200us"),
        ],
        cwd=there,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = document(tmp_path / "out")
    assert found["training"]["processes"] == 2
    assert found["after"]["predicted_ms"] <= 0.2
