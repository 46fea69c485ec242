"""What ships with the package is used without being named, and an exported model says all that its user needs.

The supernet and the predictor here are made up, in a folder that takes the place of the package's own;
the last tests are about the real ones.
"""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from ofa_profiler import Architecture, LatencyTable, get_space
from ofa_profiler.errors import InputFileError
from ofa_profiler.tables.table import Row
from ofa_search import AccuracyPredictor, Supernet, search
from ofa_search.artifacts import shipped as pretrained
from ofa_search.cli.search import main
from ofa_search.data.batches import prepare
from ofa_search.data.decoding import decode
from ofa_search.predictor import Metrics
from ofa_search.supernet.description import read_description
from ofa_search.supernet.recalibration import recalibrate
from ofa_search.supernet.supernet import load_trained, save_supernet

ROOT = Path(__file__).resolve().parents[2]
SPACE = get_space("cifar-mbv3")
LABELS = [f"class {i}" for i in range(10)]
MEASURED = {"held_out": {"images": 5000, "largest": 0.9}, "test": {"images": 10000, "largest": 0.89}}
OFFSET = -0.015
SMALL = "--budget", "5.9ms"  # little is left to choose, so networks are small and tests quick


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_supernet(n_classes: int = 10) -> Supernet:
    """With statistics that no image would give, so that it shows where they come from."""
    torch.manual_seed(0)
    supernet = Supernet(SPACE.with_classes(n_classes)).eval()
    for name, tensor in supernet.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            tensor.normal_(0, 0.2)
    return supernet


def make_pixels(count: int = 24) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the package's, with a supernet and a predictor of `cifar-mbv3`."""
    folder = tmp_path_factory.mktemp("pretrained")
    about = {"labels": LABELS, "accuracy": MEASURED}
    save_supernet(
        make_supernet(), folder / "cifar-mbv3", dtype=np.float16, metadata=about, calibration=make_pixels().numpy()
    )
    rng = np.random.default_rng(0)
    architectures = [SPACE.sample(rng) for _ in range(12)]
    accuracies = [0.8 + SPACE.macs(architecture) / 1e9 for architecture in architectures]
    fitted = AccuracyPredictor.fit(SPACE, architectures, accuracies, hidden=(8,), accuracy_of="5,000 held-out images")
    fitted = replace(fitted, offset=OFFSET, metrics=Metrics(0.4, 0.85, 0.95, 100))
    fitted.save(folder / "cifar-mbv3-predictor")
    return folder


@pytest.fixture
def shipped(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(pretrained, "FOLDER", package)
    monkeypatch.chdir(tmp_path)
    return package


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [
        Row.from_op(op, batch=1, precision="fp32", samples_ms=[op.macs / 1e6 + 0.05] * 3) for op in SPACE.unique_ops()
    ]
    path = tmp_path_factory.mktemp("tables") / "board.csv"
    LatencyTable("board", tuple(rows), {"spaces": ["cifar-mbv3"]}, path).save(path)
    return str(path)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        (result,) = json.loads(self.out)["results"]
        return dict(result)


@pytest.fixture
def run(shipped: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def run(*arguments: str) -> Done:
        code = main(arguments)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return run


def metadata_of(path: str) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


# --- used without being named --------------------------------------------------------------------------


def test_in_a_fresh_process_nothing_else_is_needed(package: Path, table: str, tmp_path: Path) -> None:
    """Without export, torch is not imported either."""
    code = f"""
import sys
from pathlib import Path
from ofa_search.artifacts import shipped as pretrained
pretrained.FOLDER = Path({str(package)!r})
from ofa_search.cli.search import main
code = main(["--lut", {table!r}, "--budget", "8ms", "--no-export", "--json"])
assert not {{"torch", "onnx", "onnxruntime", "pandas"}} & set(sys.modules)
sys.exit(code)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    result = Done(0, process.stdout, process.stderr).result
    assert result["weights"] == "trained"
    assert result["labels"] == LABELS
    predicted = AccuracyPredictor.load(package / "cifar-mbv3-predictor.safetensors").predict(
        [Architecture.from_json(result["architecture"])]
    )[0]
    assert result["predicted_accuracy"] == pytest.approx(predicted + OFFSET, abs=1e-12)
    assert result["accuracy"] == {
        "predicted": result["predicted_accuracy"],
        "predictor": {
            "name": "cifar-mbv3-predictor",
            "space": "cifar-mbv3",
            "learned_from": "5,000 held-out images",
            "metrics": {"rmse": 0.4, "kendall_tau": 0.85, "spearman": 0.95, "samples": 100},
            "offset": OFFSET,
        },
        "supernet": {"name": "cifar-mbv3", "measured": MEASURED},
    }


def test_the_exported_model_is_the_recalibrated_subnet_and_says_what_it_needs(
    run: Callable[..., Done], table: str, package: Path
) -> None:
    done = run("--lut", table, *SMALL, "--out", "found", "--json")
    assert done.code == 0, done.err
    result = done.result
    architecture = Architecture.from_json(result["architecture"])
    about = metadata_of(result["files"]["onnx"])
    for name in ("architecture", "accuracy", "preprocessing", "labels", "predicted_accuracy", "latency_ms"):
        assert json.loads(about[name]) == result[name], name
    assert about["weights"] == result["weights"] == "trained"
    # By other ways than the program's: the statistics are those of the images in the file.
    trained = load_trained(package / "cifar-mbv3.safetensors")
    network = trained.supernet.extract(architecture)
    inherited = network(images := torch.randn(1, 3, *[architecture.resolution] * 2)).detach().numpy()
    recalibrate(network, [prepare(make_pixels(), architecture.resolution, SPACE.preprocessing)])
    with torch.no_grad():
        expected = network(images).numpy()
    (logits,) = onnxruntime.InferenceSession(result["files"]["onnx"]).run(None, {"input": images.numpy()})
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert np.abs(logits - inherited).max() > 0.01 * np.abs(expected).max()


def test_people_are_told_what_was_used(run: Callable[..., Done], table: str) -> None:
    done = run("--lut", table, *SMALL)
    assert done.code == 0, done.err
    assert "accuracy" in done.out
    said = " ".join(done.err.split())
    assert "predicted by cifar-mbv3-predictor, which comes with ofa-profiler" in said
    assert "5,000 held-out images" in said
    assert "-1.50 points" in said
    assert "supernet cifar-mbv3, which comes with ofa-profiler, with BatchNorm statistics of their own" in said


def test_what_ships_has_a_name_too(run: Callable[..., Done], table: str) -> None:
    named = ("--supernet", "cifar-mbv3", "--predictor", "cifar-mbv3")
    common = ("--lut", table, "--budget", "8ms", "--no-export", "--json")
    of_time = {"search_seconds", "bound", "gap", "is_optimal"}
    found = [
        {name: value for name, value in run(*common, *more).result.items() if name not in of_time}
        for more in (named, named[:2], ())
    ]
    assert found[0] == found[1] == found[2]
    assert found[0]["predicted_accuracy"] is not None


def test_macs_are_maximised_if_asked_for_and_the_weights_are_trained_still(
    run: Callable[..., Done], table: str
) -> None:
    result = run("--lut", table, "--budget", "8ms", "--predictor", "macs", "--no-export", "--json").result
    assert result["predicted_accuracy"] is None
    assert result["accuracy"]["predictor"] is None
    assert result["weights"] == "trained"


def test_without_the_files_the_message_says_what_to_give(
    run: Callable[..., Done], table: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    done = run("--lut", table, "--budget", "8ms")
    assert done.code == 2
    assert "this version contains no accuracy predictor for cifar-mbv3" in done.err
    assert "published" not in done.err


# --- other supernets -----------------------------------------------------------------------------------


def test_another_supernet_needs_its_own_predictor(run: Callable[..., Done], table: str) -> None:
    path = save_supernet(make_supernet(), "own.safetensors")
    done = run("--lut", table, "--budget", "8ms", "--supernet", str(path), "--no-export")
    assert done.code == 2
    assert "own.safetensors" in done.err
    assert "--predictor FILE" in done.err


@pytest.mark.slow
def test_a_supernet_of_other_classes_and_without_calibration_images(run: Callable[..., Done], table: str) -> None:
    """The warning goes away with images, and the weights change; the model has the supernet's classes."""
    save_supernet(make_supernet(3), "own.safetensors", metadata={"labels": ["a", "b", "c"]})
    for i, pixels in enumerate(make_pixels(6).permute(0, 2, 3, 1).numpy()):
        folder = Path("images", "abc"[i % 3])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    own = ("--lut", table, *SMALL, "--predictor", "macs", "--supernet", "own.safetensors", "--json")
    models = []
    for more, warned in (((), True), (("--calibration", "images"), False)):
        done = run(*own, *more, "--out", f"out {warned}")
        assert done.code == 0, done.err
        assert ("give --calibration IMAGES" in done.err) == warned
        assert done.result["labels"] == ["a", "b", "c"]
        found = Architecture.from_json(done.result["architecture"])
        assert done.result["params"] == SPACE.with_classes(3).params(found) < SPACE.params(found)
        assert done.result["macs"] == SPACE.with_classes(3).macs(found) < SPACE.macs(found)
        models.append(onnxruntime.InferenceSession(done.result["files"]["onnx"]))
    side = done.result["preprocessing"]["resolution"]
    image = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)
    bare, calibrated = (model.run(None, {"input": image})[0] for model in models)
    assert bare.shape == calibrated.shape == (1, 3)
    assert not np.allclose(bare, calibrated, rtol=1e-3)


@pytest.mark.parametrize(
    ("labels", "words"), [(["a"], "10 classes but 1 labels"), ("abc", "not a list"), ([1] * 10, "not a list")]
)
def test_labels_that_make_no_sense_are_refused(labels: Any, words: str, tmp_path: Path) -> None:
    path = save_supernet(make_supernet(), tmp_path / "own.safetensors", metadata={"labels": labels})
    with pytest.raises(InputFileError, match=words):
        read_description(path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--calibration", "nowhere"), "--calibration nowhere: no such file"),
        (("--supernet", "noise.safetensors", "--predictor", "macs"), "noise.safetensors"),
    ],
)
def test_mistakes_are_one_line(run: Callable[..., Done], table: str, arguments: tuple[str, ...], words: str) -> None:
    Path("noise.safetensors").write_bytes(np.random.default_rng(0).bytes(300))
    done = run("--lut", table, "--budget", "8ms", *arguments, "--no-export")
    assert done.code == 2
    assert words in done.err
    assert len([line for line in done.err.splitlines() if not line.startswith("warning: ")]) == 1


# --- the offset ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "expected"), [(0.01, None), (0.9, 1.0), (-0.99, 0.0)])
def test_the_offset_is_in_the_predicted_accuracy(
    shipped: Path, table: str, offset: float, expected: float | None
) -> None:
    predictor = AccuracyPredictor.load(shipped / "cifar-mbv3-predictor.safetensors")
    result = search(SPACE, [(LatencyTable.load(table), 8.0)], replace(predictor, offset=offset))
    if expected is None:
        expected = predictor.predict([result.architecture])[0] + offset
    assert result.predicted_accuracy == pytest.approx(expected, abs=1e-12)


# --- the example that reads nothing but the model ------------------------------------------------------


@pytest.fixture(scope="module")
def classify() -> ModuleType:
    spec = importlib.util.spec_from_file_location("classify", ROOT / "examples" / "classify.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(package: Path, table: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "FOLDER", package)
        assert main(["--lut", table, *SMALL, "--out", str(out)]) == 0
    return str(json.loads((out / "search.json").read_text())["results"][0]["files"]["onnx"])


def test_an_image_is_prepared_as_for_the_supernet(classify: ModuleType, model: str) -> None:
    """Up to the rounding of pixels, which Pillow does twice (height and width) and torch not at all."""
    network = classify.Network(Path(model))
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pixels = torch.from_numpy(noise.transpose(2, 0, 1).copy())[None]
    for resolution in (20, 24, 28, 32):
        network.preprocessing["resolution"] = resolution
        expected = prepare(pixels, resolution, SPACE.preprocessing).numpy()
        prepared = network.prepared(Image.fromarray(noise))
        assert prepared.shape == expected.shape == (1, 3, resolution, resolution)
        assert np.abs(prepared - expected).max() <= 1.01 / 255 / min(SPACE.preprocessing.std)


def test_an_oblong_image_is_cut_as_training_images_are(classify: ModuleType, model: str) -> None:
    network = classify.Network(Path(model))
    resolution = network.preprocessing["resolution"]
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8))
    noise.save(file := io.BytesIO(), "png")
    pixels = torch.from_numpy(decode(file.getvalue(), resolution, exactly=False).copy())[None]
    expected = prepare(pixels, resolution, SPACE.preprocessing).numpy()
    np.testing.assert_allclose(network.prepared(noise), expected, atol=1e-5)


def test_files_are_classified_by_the_metadata_alone(classify: ModuleType, model: str, tmp_path: Path) -> None:
    """In a process of its own, on a model that was moved; top-1 of a folder agrees with the single answers."""
    moved = tmp_path / "moved.onnx"
    shutil.copy(model, moved)
    paths = []
    for i, pixels in enumerate(make_pixels(5).permute(0, 2, 3, 1).numpy()):
        path = tmp_path / "images" / LABELS[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        paths.append(path)
    command = [sys.executable, str(ROOT / "examples" / "classify.py"), str(moved), *map(str, paths)]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path / "images")], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    *lines, top1, predicted = done.stdout.splitlines()
    network = classify.Network(moved)
    right = 0
    for path, line in zip(paths, lines, strict=True):
        best = LABELS[int(network.probabilities(Image.open(path)).argmax())]
        assert line.startswith(f"{path}: {best} ")
        right += best == path.parent.name
    assert top1 == f"top-1: {right / 5:.2%} of 5 images"
    assert predicted == f"predicted by the search: {network.accuracy['predicted']:.2%}"


def test_a_model_that_says_nothing_is_refused(
    classify: ModuleType,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    silent = onnx.load(model)
    del silent.metadata_props[:]
    onnx.save(silent, tmp_path / "silent.onnx")
    monkeypatch.setattr(sys, "argv", ["classify.py", str(tmp_path / "silent.onnx")])
    assert classify.main() == 2
    assert "its metadata lacks 'preprocessing'" in capsys.readouterr().err


# --- the real files ------------------------------------------------------------------------------------

SUPERNET, PREDICTOR = pretrained.shipped_supernet("cifar-mbv3"), pretrained.shipped_predictor("cifar-mbv3")
ships = pytest.mark.skipif(not (SUPERNET and PREDICTOR), reason="no trained supernet of cifar-mbv3 is here yet")


@ships
def test_what_ships_is_what_it_is_said_to_be() -> None:
    assert SUPERNET
    assert PREDICTOR
    assert SUPERNET.stat().st_size < 10e6
    about = read_description(SUPERNET)
    assert about.space == SPACE
    assert about.labels is not None
    assert about.labels[0] == "airplane"
    assert {"held_out", "test"} <= set(about.accuracy)
    assert load_trained(SUPERNET).calibration is not None
    predictor = AccuracyPredictor.load(PREDICTOR)
    assert (predictor.space, predictor.n_classes) == (SPACE.name, 10)
    assert predictor.resolutions_of(SPACE) == SPACE.resolutions
    assert predictor.accuracy_of
    assert predictor.metrics is not None
    for path in (SUPERNET, PREDICTOR):
        assert isinstance(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")), dict)


def test_the_included_predictor_of_mixed_precision_is_what_it_is_said_to_be() -> None:
    path = pretrained.shipped_predictor("cifar-mbv3-mixed")
    assert path is not None
    assert path.stem == "cifar-mbv3-mixed-predictor"
    predictor, space = AccuracyPredictor.load(path), get_space("cifar-mbv3-mixed")
    assert predictor.knows_bits
    assert (predictor.space, predictor.n_classes) == (space.name, 10)
    assert predictor.resolutions_of(space) == SPACE.resolutions
    assert predictor.metrics is not None
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert PREDICTOR
    assert about["transfer"]["from"] == PREDICTOR.stem
    assert about["offset"] == AccuracyPredictor.load(PREDICTOR).offset
    for name in ("kendall_tau", "spearman"):  # what 5,000 images say is noisy, but it must not be worse than before
        assert about["metrics"][name] >= about["transfer"]["metrics_before"][name] - 0.01


@ships
def test_the_exported_default_is_as_accurate_as_predicted(
    classify: ModuleType,
    table: str,
    shared_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """On the first 1000 test images, with room for the 1.5 points and for so few images."""
    monkeypatch.chdir(tmp_path)
    assert main(["--lut", table, "--budget", "8ms", "--json"]) == 0
    result = Done(0, capfd.readouterr().out, "").result
    network = classify.Network(Path(result["files"]["onnx"]))
    images = classify.in_parquet(shared_dir / "data" / "cifar10" / "test-00000-of-00001.parquet")
    right = [network.probabilities(image).argmax() == label for image, label in (next(images) for _ in range(1000))]
    assert np.mean(right) == pytest.approx(result["predicted_accuracy"], abs=0.015 + 0.03)
