"""Torch is for training alone: everything else runs where it is not installed, and what needs it names the extra."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from support.no_torch import without_torch
from support.paths import ROOT

from ofa_profiler import Architecture, LatencyTable, get_space
from ofa_profiler.tables.table import Row
from ofa_search.artifacts.shipped import shipped_supernet
from ofa_search.evaluation.subnets import calibrated, calibration_of
from ofa_search.supernet.supernet import Supernet, load_trained, save_supernet

SPACE = get_space("cifar-mbv3")
TRAIN = "pip install 'ofa-profiler[train]'"
#: The most that a fresh environment may take on the disk, without pip and setuptools.
MOST_BYTES = 300e6


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return without_torch(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Times are made up: the MACs of the ops."""
    rows = tuple(
        Row.from_op(op, batch=1, precision="fp32", samples_ms=[op.macs / 1e6 + 0.05] * 3) for op in SPACE.unique_ops()
    )
    path = tmp_path_factory.mktemp("tables") / "board.csv"
    LatencyTable("board", rows, {"spaces": [SPACE.name]}, path).save(path)
    return path


def run(environment: dict[str, str], *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=600)


def search(environment: dict[str, str], table: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    module = "ofa_search.cli.search"
    return run(environment, "-m", module, "--lut", table, "--budget", "6ms", *arguments, "--json", cwd=cwd)


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if not line.startswith("warning: "))
    return line


def test_torch_is_not_there(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(environment, "-c", "import torch", cwd=tmp_path)
    assert done.returncode == 1
    assert "No module named 'torch'" in done.stderr


def logits_of(model: str, images: torch.Tensor) -> np.ndarray:
    (logits,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(
        None, {"input": images.numpy()}
    )
    return np.asarray(logits)


def test_the_shipped_supernet_is_exported_and_computes_what_torch_does(
    environment: dict[str, str], table: Path, tmp_path: Path
) -> None:
    done = search(environment, table, "--out", "found", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["weights"] == "trained"
    assert {Path(path).suffix for path in result["files"].values()} == {".json", ".onnx", ".tflite"}
    shipped = shipped_supernet(SPACE.name)
    assert shipped
    trained = load_trained(shipped)
    assert trained.calibration is not None
    architecture = Architecture.from_json(result["architecture"])
    network = calibrated(trained.supernet, architecture, calibration_of(trained.calibration))
    images = torch.randn(1, 3, *[architecture.resolution] * 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images).numpy()
    logits = logits_of(str(tmp_path / result["files"]["onnx"]), images)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_checkpoint_with_its_own_statistics_is_exported(
    environment: dict[str, str], table: Path, tmp_path: Path
) -> None:
    """As the OFA authors save theirs: a pickle of tensors with their names for them."""
    torch.manual_seed(0)
    supernet = Supernet(SPACE).eval()
    from ofa_search.supernet.ofa_names import published_names

    names = published_names(supernet.state_dict(), (slot.name for slot in SPACE.slots))
    state = {names[name]: tensor for name, tensor in supernet.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "net.pth")
    done = search(environment, table, "--predictor", "macs", "--supernet", "net.pth", "--out", "found", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "give --calibration IMAGES" in done.stderr
    (result,) = json.loads(done.stdout)["results"]
    architecture = Architecture.from_json(result["architecture"])
    images = torch.randn(1, 3, *[architecture.resolution] * 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = supernet.extract(architecture)(images).numpy()
    logits = logits_of(str(tmp_path / result["files"]["onnx"]), images)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_images_that_calibrate_need_torch(environment: dict[str, str], table: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    line = only_line(search(environment, table, "--calibration", "images", cwd=tmp_path))
    assert re.fullmatch(rf"ofa-search: --calibration needs torch \(.*\): {re.escape(TRAIN)}", line)
    pixels = np.zeros((4, 3, 32, 32), dtype=np.uint8)
    save_supernet(Supernet(SPACE).eval(), tmp_path / "net.safetensors", calibration=pixels)
    own = ("--predictor", "macs", "--supernet", "net.safetensors")
    line = only_line(search(environment, table, *own, cwd=tmp_path))
    assert line.startswith("ofa-search: the supernet net, which has calibration images")
    assert line.endswith(TRAIN)
    assert search(environment, table, *own, "--no-export", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("supernet", "--data", "images", "--out", "out"),
        ("predictor", "--data", "images", "--supernet", "net.safetensors", "--out", "out"),
        ("subnet", "--data", "images", "--from-scratch", "--architecture", "a.json", "--out", "out"),
    ],
)
def test_training_needs_torch(environment: dict[str, str], arguments: tuple[str, ...], tmp_path: Path) -> None:
    line = only_line(run(environment, "-m", "ofa_search.train_cli", *arguments, cwd=tmp_path))
    assert re.fullmatch(rf"ofa-train: {arguments[0]} needs torch \(.*\): {re.escape(TRAIN)}", line)


def test_help_needs_no_torch(environment: dict[str, str], tmp_path: Path) -> None:
    for arguments in ([], ["supernet"], ["subnet"], ["predictor"]):
        done = run(environment, "-m", "ofa_search.train_cli", *arguments, "--help", cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_python_users_are_told_too(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(environment, "-c", "import ofa_search; ofa_search.search; ofa_search.Supernet", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().endswith(TRAIN)


# --- a real environment ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with this checkout in it: `pip install .`"""
    folder, source = tmp_path_factory.mktemp("fresh") / "venv", tmp_path_factory.mktemp("source")
    for package in ("device_agents", "ofa_profiler", "ofa_search"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [folder / "bin" / "python", "-m", "pip", "install", "--constraint", ROOT / "constraints.txt", source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"pip cannot install the project here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_an_installation_is_small(fresh: Path) -> None:
    (site,) = fresh.glob("lib/python*/site-packages")
    assert not (site / "torch").exists()
    sizes = {folder.name: size_of(folder) for folder in site.iterdir()}
    bundled = {name for name in sizes if re.match(r"(pip|setuptools|pkg_resources|_distutils_hack)\b", name)}
    total = sum(size for name, size in sizes.items() if name not in bundled)
    assert total < MOST_BYTES, sorted(sizes.items(), key=lambda item: -item[1])[:10]


def size_of(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())


@pytest.mark.slow
def test_the_quickstart_runs_in_it(fresh: Path, tmp_path: Path) -> None:
    """Without matplotlib too, which `make quickstart` adds for the plot."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    small = ("--resolution", "24", "--time-limit", "2s", "--out", tmp_path / "out")
    command = [fresh / "bin" / "python", ROOT / "examples" / "quickstart.py", *small]
    done = subprocess.run(list(map(str, command)), env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = json.loads((tmp_path / "out" / "search.json").read_text())["results"]
    assert result["weights"] == "trained"
    assert Path(result["files"]["onnx"]).exists()
