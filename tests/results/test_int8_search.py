"""`ofa-search` with int8 tables: int8 files for both runtimes, whose metadata say where their ranges come from."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import ROOT
from support.tflite_files import tensors

from ofa_profiler import Architecture, LatencyTable, get_space
from ofa_profiler.networks.ranges import CALIBRATED, MADE_UP, TABLE
from ofa_profiler.tables.row import Row
from ofa_search.artifacts.shipped import shipped_supernet
from ofa_search.cli.search import main
from ofa_search.results.deployments import deployments_of
from ofa_search.supernet.checkpoint import read_checkpoint
from ofa_search.supernet.supernet import Supernet, save_supernet

SPACE = get_space("cifar-mbv3")
FORMS = {"activation h_swish": "arithmetic", "depthwise 7x7, stride 1": "split"}


def save_table(path: Path, precision: str = "int8", runtime: str = "litert", **metadata: Any) -> str:
    rows = [
        Row.from_op(op, batch=1, precision=precision, samples_ms=[op.macs / 1e6 + 0.05] * 3)
        for op in SPACE.unique_ops()
    ]
    forms = FORMS if precision == "int8" else {"depthwise 7x7, stride 1": "split"}
    known = {
        "spaces": ["cifar-mbv3"],
        "runtime": runtime,
        "precision": precision,
        "device": {"machine": "x86_64", "vnni": True},
        "forms": {"chosen": forms if runtime == "litert" else {}, "trials": []},
    }
    LatencyTable(path.stem, tuple(rows), {**known, **metadata}, path).save(path)
    return str(path)


@pytest.fixture(scope="module")
def classify() -> ModuleType:
    spec = importlib.util.spec_from_file_location("classify", ROOT / "examples" / "classify.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth images of two classes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(16):
        kind = folder / ("cat" if number % 2 else "dog")
        kind.mkdir(exist_ok=True)
        noise = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        noise.resize((32, 32), Image.Resampling.BICUBIC).save(kind / f"{number}.png")
    return folder


def searched(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    """The result of a search, and what it said."""
    assert main([*arguments, "--json"]) == 0
    out, err = capfd.readouterr()
    (result,) = json.loads(out)["results"]
    return result, err


def test_both_files_are_int8_with_the_ranges_of_the_supernet(
    classify: ModuleType, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    board = save_table(tmp_path / "board.csv")
    result, err = searched(capfd, "--lut", board, "--budget", "5.9ms", "--out", str(tmp_path), "--precision", "int8")
    assert (result["precision"], result["ranges"]) == ("int8", TABLE)
    assert "made up" not in err
    for kind, load in (("tflite", classify.load_tflite), ("onnx", classify.load_onnx)):
        _, metadata = load(Path(result["files"][kind]))
        assert (metadata["precision"], metadata["ranges"], metadata["weights"]) == ("int8", TABLE, "trained")
    classes = [
        [int(network.probabilities(image).argmax()) for image in images_in(photos)]
        for network in (classify.Network(Path(result["files"][kind])) for kind in ("tflite", "onnx"))
    ]
    assert np.mean(np.equal(*classes)) > 0.8
    stored = tensors(Path(result["files"]["tflite"]).read_bytes())
    shipped = shipped_supernet(SPACE.name)
    assert shipped is not None
    ranges = read_checkpoint(shipped).ranges
    assert ranges is not None
    np.testing.assert_allclose(stored["input/QUANTIZE"].span, ranges.spans["input"], atol=0.05)


def images_in(folder: Path) -> list[Image.Image]:
    return [Image.open(path) for path in sorted(folder.glob("*/*.png"))]


def test_ranges_of_images_are_measured_on_the_network(
    classify: ModuleType, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    board = save_table(tmp_path / "board.csv")
    arguments = ("--lut", board, "--budget", "5.9ms", "--out", str(tmp_path), "--calibration", str(photos))
    result, _ = searched(capfd, *arguments)
    assert result["ranges"] == CALIBRATED
    _, metadata = classify.load_tflite(Path(result["files"]["tflite"]))
    assert metadata["ranges"] == CALIBRATED
    size = Architecture.from_json(result["architecture"]).resolution
    assert size is not None
    pixels = np.stack([np.asarray(image.resize((size, size))) for image in images_in(photos)]) / 255
    normalised = (pixels - SPACE.preprocessing.mean) / SPACE.preprocessing.std
    stored = tensors(Path(result["files"]["tflite"]).read_bytes())
    np.testing.assert_allclose(stored["input/QUANTIZE"].span, (normalised.min(), normalised.max()), atol=0.3)


def test_images_in_the_file_of_a_supernet_measure_ranges_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 3, 32, 32), dtype=np.uint8)
    supernet = save_supernet(Supernet(SPACE), tmp_path / "mine", calibration=pixels)
    board = save_table(tmp_path / "board.csv")
    macs = ("--predictor", "macs", "--supernet", str(supernet), "--out", str(tmp_path))
    result, err = searched(capfd, "--lut", board, "--budget", "5.9ms", *macs)
    assert result["ranges"] == CALIBRATED
    assert "no ranges" not in err


def test_without_ranges_they_are_made_up_and_both_the_file_and_the_output_say_so(
    classify: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    supernet = save_supernet(Supernet(SPACE), tmp_path / "mine")
    board = save_table(tmp_path / "board.csv", runtime="onnxruntime", encoding="u8s8")
    macs = ("--predictor", "macs", "--supernet", str(supernet), "--out", str(tmp_path))
    result, err = searched(capfd, "--lut", board, "--budget", "5.9ms", *macs)
    assert result["ranges"] == MADE_UP
    assert "warning: mine has no ranges for int8" in err
    _, metadata = classify.load_onnx(Path(result["files"]["onnx"]))
    assert (metadata["precision"], metadata["ranges"]) == ("int8", MADE_UP)
    assert main(["--lut", board, "--budget", "5.9ms", *macs]) == 0
    assert "int8 with made-up ranges: good for timing, not for predictions" in capfd.readouterr().err


def test_a_float_table_gives_float_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    board = save_table(tmp_path / "board.csv", "fp32")
    result, _ = searched(capfd, "--lut", board, "--budget", "5.9ms", "--out", str(tmp_path))
    assert (result["precision"], result["ranges"]) == ("fp32", None)


def test_the_precision_is_that_of_the_tables(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fp32, int8 = save_table(tmp_path / "f.csv", "fp32"), save_table(tmp_path / "i.csv")
    assert main(["--lut", int8, "--budget", "8ms", "--precision", "fp32", "--no-export"]) == 2
    words = "--precision fp32: table i is int8; give a table of ofa-profile --precision fp32"
    assert words in capfd.readouterr().err
    assert main(["--lut", fp32, "--budget", "8ms", "--lut", int8, "--budget", "8ms", "--no-export"]) == 2
    assert "the tables have different precisions: i is int8, the first is fp32" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("device", "encoding"),
    [({"machine": "x86_64", "vnni": True}, "u8s8"), ({"machine": "aarch64"}, "s8s8"), ({}, "u8s7"), (None, "u8s7")],
)
def test_the_other_runtime_has_the_encoding_that_suits_the_device(
    tmp_path: Path, device: dict[str, Any] | None, encoding: str
) -> None:
    table = LatencyTable.load(save_table(tmp_path / "board.csv", device=device))
    assert deployments_of([table])["onnxruntime"].encoding == encoding
