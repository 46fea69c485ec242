"""`ofa-train supernet` and `ofa-train subnet` from images to models, and what they say to mistakes."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

pytest.importorskip("PIL")
from PIL import Image
from support.image_files import encoded, write_parquet
from support.paths import ROOT

from ofa_profiler.spaces import get_space
from ofa_search.cli import processes
from ofa_search.cli import train as train_cli
from ofa_search.data.images import load_images

SPACE = get_space("cifar-mbv3")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label, name in enumerate(("dark", "middling", "bright")):
            (root / split / name).mkdir(parents=True)
            for number in range(8):
                pixels = rng.integers(0, 90, (32, 32, 3)) + 80 * label
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{number}.png")
    return root


def architecture(path: Path) -> Path:
    path.write_text(json.dumps({"results": [{"architecture": SPACE.smallest.to_json()}]}))
    return path


def train(*arguments: object) -> int:
    return train_cli.main([str(argument) for argument in arguments])


def common(photos: Path, tmp_path: Path) -> list[object]:
    where = ["--data", photos, "--cache", tmp_path / "cache", "--device", "cpu"]
    return [*where, "--batch", 8, "--epochs", 1, "--held-out", 4, "--json"]


def test_from_a_folder_of_images_to_a_model(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A supernet of three classes, its smallest network fine-tuned, and the model that anyone can run."""
    out = tmp_path / "supernet"
    again = [*common(photos, tmp_path), "--schedule", "sandwich", "--test-data", photos]
    assert train("supernet", "--out", out, *again) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["labels"] == ["bright", "dark", "middling"]
    assert document["accuracy"]["test"]["images"] == 24
    assert set(document["accuracy"]["held_out"]) == {"images", "smallest", "middle", "largest"}

    network = tmp_path / "network"
    what = ["--supernet", document["supernet"], "--architecture", architecture(tmp_path / "search.json"), "--distill"]
    assert train("subnet", "--out", network, *what, *common(photos, tmp_path), "--test-data", photos) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((network / "subnet.json").read_text())
    assert summary["architecture"] == SPACE.smallest.to_json()
    assert {"onnx", "tflite", "log"} <= set(summary["files"])
    top1 = summary["accuracy"]["test"]["top1"]
    assert _top1(Path(summary["files"]["onnx"]), photos, tmp_path) == top1
    lines = _classified(Path(summary["files"]["onnx"]), photos / "test")
    assert lines[0].startswith(f"{photos / 'test' / 'dark' / '0.png'}: ")
    assert {word for word in lines[0].split()[1:] if not word.endswith(("%", "%,"))} == set(document["labels"])
    assert lines[1] == f"top-1: {top1:.2%} of 24 images"
    assert lines[3] == f"measured after training (test): {top1:.2%} of 24 images"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_the_example_reads_images_as_they_are_found(tmp_path: Path) -> None:
    """Broken EXIF and 16 bits of grey do not matter; labels in a parquet file may be numbers or names."""
    spec = importlib.util.spec_from_file_location("classify", ROOT / "examples" / "classify.py")
    assert spec
    assert spec.loader
    classify = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(classify)
    grey = Image.fromarray(np.full((8, 8), 0x7F12, dtype=np.uint16))
    assert np.asarray(classify.upright(grey)).max() == 0x7F
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    with Image.open(tmp_path / "a.png") as image:
        assert classify.upright(image).size == (8, 8)
    for labels, expected in (([1, 0], [1, 0]), (["dog", "cat"], [1, 0])):
        path = write_parquet(tmp_path / "a.parquet", [encoded()] * 2, labels)
        assert [number for _, number in classify.in_parquet(path, ["cat", "dog"])] == expected
    write_parquet(path, [encoded()], ["bird"])
    with pytest.raises(ValueError, match="the network has no class 'bird'"):
        list(classify.in_parquet(path, ["cat", "dog"]))
    write_parquet(path, [encoded()], [0], column="other")
    with pytest.raises(ValueError, match="it has img, other"):
        list(classify.in_parquet(path, ["cat", "dog"]))


def _classified(model: Path, images: Path) -> list[str]:
    """What `examples/classify.py` prints for an image and for a folder of them."""
    command = [sys.executable, str(ROOT / "examples" / "classify.py"), str(model), str(images / "dark" / "0.png")]
    done = subprocess.run([*command, "--folder", str(images)], capture_output=True, text=True, timeout=300, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def _top1(model: Path, photos: Path, tmp_path: Path) -> float:
    """By what the model says about itself, with plain onnxruntime."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    about = {name: json.loads(text) for name, text in _json(session.get_modelmeta().custom_metadata_map)}
    steps, size = about["preprocessing"], about["preprocessing"]["resolution"]
    images = load_images(photos, 32, split="test", cache=tmp_path / "cache")
    assert list(images.classes) == about["labels"]
    x = torch.nn.functional.interpolate(images.pixels.float(), (size, size), mode="bilinear", antialias=True) / 255
    mean, std = (np.array(steps[name], dtype=np.float32)[:, None, None] for name in ("mean", "std"))
    right = [
        session.run(None, {"input": ((image.numpy() - mean) / std)[None]})[0].argmax() == label
        for image, label in zip(x, images.labels.tolist(), strict=True)
    ]
    return round(float(np.mean(right)), 4)


def _json(metadata: dict[str, str]) -> list[tuple[str, str]]:
    return [(name, metadata[name]) for name in ("preprocessing", "labels", "accuracy", "architecture")]


def test_results_inside_the_images_and_damaged_ones_are_left_out(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was understood is said before; a second run with the same images resumes."""
    mine = shutil.copytree(photos, tmp_path / "mine")
    (mine / "train" / "dark" / "0.png").write_bytes(b"")
    arguments = ["subnet", "--from-scratch", "--architecture", architecture(tmp_path / "search.json"), "--data", mine]
    arguments += ["--cache", mine / "cache", "--out", mine / "train" / "out", "--test-data", mine, "--device", "cpu"]
    arguments += ["--batch", 8, "--epochs", 0.4, "--held-out", 4]
    assert train(*arguments) == 2
    assert "dark/0.png: empty; repair or remove it (or train without: ofa-train --skip-damaged)" in (
        capsys.readouterr().err
    )
    assert train(*arguments, "--skip-damaged") == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"training images: {mine} (train): 24 images of 3 classes (bright, dark, middling), 8 each"
    assert "  not used for this: test (24 images of 3 classes)" in lines
    assert "  left out: 1 damaged image" in lines
    summary = json.loads((mine / "train" / "out" / "subnet.json").read_text())
    assert (summary["labels"], summary["training"]["images"]) == (["bright", "dark", "middling"], 19)
    Image.new("RGB", (32, 32)).save(mine / "train" / "out" / "figure.png")
    assert train(*arguments, "--skip-damaged") == 0
    assert "train/out: results are written there" in capsys.readouterr().err


def test_a_test_on_the_training_images_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = common(photos / "train", tmp_path)
    assert train("supernet", "--out", tmp_path / "out", *where, "--test-data", photos / "train") == 2
    assert "24 files with test images are files of training images" in capsys.readouterr().err


def test_a_shipped_way_from_scratch(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    what = ["--from-scratch", "--architecture", architecture(tmp_path / "search.json"), "--optimizer", "sgd"]
    assert train("subnet", "--out", tmp_path / "out", *what, *common(photos, tmp_path)) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["training"]["start"] == "scratch"
    assert (summary["training"]["optimizer"], summary["training"]["learning_rate"]) == ("sgd", 0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("supernet --data x --out y --epochs 0", "--epochs: '0' is not a number above 0"),
        ("supernet --data x --out y --epochs nan", "--epochs: 'nan' is not a number above 0"),
        ("supernet --data x --out y --label-smoothing 1", "'1' is not a number of at least 0 and below 1"),
        ("supernet --data x --out y --weight-decay -1", "'-1' is not a number of at least 0"),
        ("supernet --data x --out y --seed -1", "'-1' is not a whole number, 0 or more"),
        ("supernet --data x --out y --optimizer lamb", "invalid choice: 'lamb'"),
        ("supernet --data x --out y --batch 0", "--batch: '0' is not a whole number"),
        ("supernet --data x --out y --schedule fast", "no schedule 'fast'"),
        ("supernet --data x --out y --space mine", "unknown search space 'mine'"),
        ("supernet --data nowhere --out y --device cpu", "nowhere: no such file or folder"),
        ("supernet --data x --out y --device tpu", "--device tpu is not one of auto, cpu, cuda, cuda:N"),
        ("supernet --out y", "required: --data"),
        ("subnet --data x --out y --architecture z", "give one of --supernet NAME|FILE and --from-scratch"),
        ("subnet --data x --out y --architecture z --from-scratch --distill", "--distill needs --supernet"),
        ("subnet --data x --out y --architecture nowhere.json --from-scratch", "nowhere.json: cannot be read"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(*arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("ofa-train: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"results": []}', "holds 0 networks"),
        ('{"results": [{}, {}]}', "holds 2 networks; give a file with one of them"),
        ('{"space": "cifar-mbv3"}', "'stages' must be a list|stages must be a list"),
        ("[]", "an architecture is a JSON object, not list"),
    ],
)
def test_an_architecture_file_that_is_none(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text(text)
    assert train("subnet", "--data", "x", "--out", "y", "--from-scratch", "--architecture", tmp_path / "a.json") == 2
    error = capsys.readouterr().err
    assert "a.json: " in error
    assert any(part in error for part in message.split("|"))


def test_only_the_first_process_tells_what_happens_to_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait to be ended, and speak up if that does not happen."""
    monkeypatch.setattr(processes, "_PATIENCE_S", 0.01)
    monkeypatch.setenv("RANK", "1")
    assert train("supernet", "--data", "x", "--out", "y", "--schedule", "fast") == 2
    assert "no schedule 'fast'" in capsys.readouterr().err

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(processes.time, "sleep", interrupted)
    assert train("supernet", "--data", "x", "--out", "y", "--schedule", "fast") == 130
    assert capsys.readouterr().err == ""


def test_an_interrupted_training_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_cli.train_supernet, "run", interrupted)
    assert train("supernet", "--data", "x", "--out", "y") == 130
    assert "run the same command again to resume from the last saved step" in capsys.readouterr().err
