"""Images for training: parquet and folders, of any size, through one cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pa = pytest.importorskip("pyarrow")
pytest.importorskip("PIL")
import pyarrow.parquet as parquet  # noqa: E402
from PIL import Image  # noqa: E402
from support.image_files import BLUE, GREEN, RED, encoded, write_parquet  # noqa: E402

from ofa_profiler.base.progress import Progress  # noqa: E402
from ofa_profiler.errors import InputFileError, UsageError  # noqa: E402
from ofa_search.data import images as data  # noqa: E402
from ofa_search.data.images import Images, load_images  # noqa: E402


@pytest.fixture
def load(tmp_path: Path):
    return lambda path, *args, **how: load_images(path, *args, cache=tmp_path / "cache", **how)


def folder(root: Path, **files: Image.Image) -> Path:
    for place, image in files.items():
        name, _, rest = place.partition("__")
        path = root / name / rest.replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return root


# --- parquet ----------------------------------------------------------------------------------------------


def test_class_names_come_from_hugging_face(tmp_path: Path, load) -> None:
    path = write_parquet(tmp_path / "a.parquet", [encoded(), encoded(colour=BLUE)], [1, 0], names=["x", "y", "z"])
    images = load(path)
    assert images.classes == ("x", "y", "z")
    assert images.labels.tolist() == [1, 0]
    assert images.pixels.shape == (2, 3, 32, 32)
    assert [tuple(pixels[:, 5, 5].tolist()) for pixels in images.pixels] == [RED, BLUE]


def test_without_them_classes_are_numbers(tmp_path: Path, load) -> None:
    """Ten classes of 32 pixels are not CIFAR-10's."""
    path = write_parquet(tmp_path / "a.parquet", [encoded()] * 10, list(range(10)), column="fine_label")
    assert load(path).classes == tuple("0123456789")


def test_the_real_data_set(shared_dir: Path, load) -> None:
    images = load(shared_dir / "data" / "cifar10" / "test-00000-of-00001.parquet")
    assert (len(images), images.size, images.classes) == (10000, 32, data.CIFAR10_CLASSES)
    assert torch.bincount(images.labels).tolist() == [1000] * 10


def test_a_folder_of_parquet_files_has_parts(tmp_path: Path, load) -> None:
    for number in range(2):
        write_parquet(tmp_path / "set" / f"train-0000{number}-of-00002.parquet", [encoded()] * 2, [number, 2])
    write_parquet(tmp_path / "set" / "test-00000-of-00001.parquet", [encoded()], [2])
    assert load(tmp_path / "set").labels.tolist() == [0, 2, 1, 2]
    assert load(tmp_path / "set", split="test").labels.tolist() == [2]
    (tmp_path / "set" / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(InputFileError, match=r"has no test-\*.parquet or validation-\*.parquet with labels"):
        load(tmp_path / "set", split="test")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([encoded(), b"GIF89"], [0, 0], "row 1: not an image, or damaged"),
        ([encoded(), encoded()[:-30]], [0, 0], "row 1: not an image, or damaged"),
        ([encoded(), None], [0, 0], "row 1: not an image, or damaged .no bytes"),
        ([encoded()] * 3, [0, 1, -1], "row 2: label is -1, not a whole number"),
        ([encoded()] * 2, [0, None], "row 1: label is None"),
        ([encoded()] * 2, [0.5, 1], "row 0: label is 0.5"),
        ([], [], "holds no images"),
    ],
)
def test_a_bad_row_is_named(images: list[bytes], labels: list[object], message: str, tmp_path: Path, load) -> None:
    path = write_parquet(tmp_path / "a.parquet", images, labels)
    with pytest.raises(InputFileError, match=message) as caught:
        load(path)
    assert "a.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path, load) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    parquet.write_table(pa.table({"text": ["x"]}), tmp_path / "b.parquet")
    parquet.write_table(pa.table({"img": ["x"], "label": [0]}), tmp_path / "c.parquet")
    for name, message in (
        ("a.parquet", "not a parquet file, or damaged"),
        ("b.parquet", "has the columns text; images are looked for in img, image"),
        ("c.parquet", "column img holds paths, not images"),
        ("d.parquet", "no such file or folder"),
    ):
        with pytest.raises(InputFileError, match=message):
            load(tmp_path / name)


# --- folders ----------------------------------------------------------------------------------------------


def split_image(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Red at the left, blue at the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image.convert(mode)


def test_images_of_every_kind_become_squares(tmp_path: Path, load) -> None:
    upright = split_image((40, 80))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter: red then lies above blue
    root = tmp_path / "photos"
    folder(root, a__oblong_png=split_image((200, 60)), a__grey_png=split_image((64, 64), "L"))
    folder(root, b__rgba_webp=split_image((90, 70), "RGBA"), b__cmyk_jpg=split_image((300, 200), "CMYK"))
    folder(root, c__palette_png=split_image((50, 50), "P"))
    upright.save(root / "c" / "turned.jpg", exif=exif)
    (root / "c" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    images = load(root, 32)
    assert images.classes == ("a", "b", "c")
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.pixels.shape == (6, 3, 32, 32)
    grey, oblong, cmyk, rgba, palette, turned = images.pixels.int()
    for image in (oblong, cmyk, rgba, palette):
        assert image[0, :, 4].float().mean() > 150
        assert image[2, :, 28].float().mean() > 150
    assert (grey[0] == grey[2]).all()
    assert turned[0, 4].float().mean() > 150
    assert turned[2, 28].float().mean() > 150


def test_large_images_are_kept_somewhat_larger_than_the_input(tmp_path: Path, load) -> None:
    root = folder(tmp_path / "photos", a__a_jpg=split_image((400, 300)), b__b_png=split_image((230, 250)))
    assert load(root, 224).size == 258
    assert load(root, 32).size == 32
    with pytest.raises(InputFileError, match="set a resolution"):
        load(root)


def test_small_squares_are_kept_as_they_are_unless_one_is_different(tmp_path: Path, load) -> None:
    root = folder(tmp_path / "photos", a__a_png=split_image((48, 48)), b__b_png=split_image((48, 48)))
    assert load(root, 32).size == load(root, 224).size == 48
    folder(root, b__c_png=split_image((48, 47)))
    assert load(root, 32).size == 32


def test_a_folder_may_have_parts(tmp_path: Path, load) -> None:
    root = tmp_path / "photos"
    folder(root / "train", x__a_png=split_image((32, 32)), y__b_png=split_image((32, 32)))
    folder(root / "val", y__c_png=split_image((32, 32)))
    training, test = load(root), load(root, split="test")
    assert (training.classes, test.classes) == (("x", "y"), ("y",))
    assert test.with_classes(training.classes).labels.tolist() == [1]
    with pytest.raises(UsageError, match="has the class 'x', which the training images do not have"):
        training.with_classes(test.classes)


def test_a_damaged_file_and_an_empty_folder_are_named(tmp_path: Path, load) -> None:
    root = folder(tmp_path / "photos", a__a_png=split_image((32, 32)), b__a_png=split_image((32, 32)))
    (root / "a" / "b.png").write_bytes((root / "a" / "a.png").read_bytes()[:60])
    with pytest.raises(InputFileError, match=r"b\.png: not an image, or damaged"):
        load(root)
    assert not files_in(tmp_path / "cache")  # and nothing is half-written
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(InputFileError, match="holds no images: expected one folder per class"):
        load(tmp_path / "empty")


def files_in(cache: Path) -> list[str]:
    """All but the locks."""
    return [path.name for path in cache.glob("*") if path.suffix != ".lock"]


# --- the cache --------------------------------------------------------------------------------------------


def test_images_are_decoded_once_and_again_when_they_change(tmp_path: Path, load) -> None:
    root = folder(tmp_path / "photos", a__a_png=split_image((32, 32)), b__b_png=split_image((32, 32)))
    told: list[Progress] = []

    def decodes() -> bool:
        told.clear()
        load(root, 32, progress=told.append)
        return told == [Progress("decode", 2, 2, words="images")]

    assert decodes()
    assert not decodes()
    (file,) = (tmp_path / "cache").glob("*.npy")
    whole = file.read_bytes()
    for broken in (b"", whole[:-1], b"x" + whole[1:]):
        file.write_bytes(broken)
        assert decodes()
    Image.new("RGB", (32, 32), GREEN).save(root / "a" / "a.png")
    os.utime(root / "a" / "a.png", ns=(1, 1))
    assert decodes()
    assert tuple(load(root, 32).pixels[0, :, 3, 3].tolist()) == GREEN


def test_what_killed_runs_left_in_the_cache_is_removed(tmp_path: Path, load) -> None:
    root = folder(tmp_path / "photos", a__a_png=split_image((32, 32)), b__a_png=split_image((32, 32)))
    load(root, 32)
    (file,) = (tmp_path / "cache").glob("*.npy")
    file.unlink()
    (tmp_path / "cache" / f".{file.name}.abc.tmp").write_bytes(b"half")
    load(root, 32)
    assert files_in(tmp_path / "cache") == [file.name]


@pytest.mark.slow
def test_trainings_that_start_together_decode_once(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", **{f"{'ab'[n % 2]}__{n}_png": split_image((32, 32)) for n in range(300)})
    script = """
import sys
from pathlib import Path
from ofa_search.data.images import load_images
print("ready", flush=True)
sys.stdin.readline()
told = []
images = load_images(sys.argv[1], 32, cache=Path(sys.argv[2]), progress=told.append)
print(len(images), bool(told))
"""
    command = [sys.executable, "-c", script, str(root), str(tmp_path / "cache")]
    all_four = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in all_four:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in all_four:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    said = sorted(process.communicate()[0] for process in all_four)
    assert said == ["300 False\n"] * 3 + ["300 True\n"]
    assert len(files_in(tmp_path / "cache")) == 1


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", a__a_png=split_image((32, 32)), b__a_png=split_image((32, 32)))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        load_images(root, cache=tmp_path / "file" / "cache")


# --- images in memory -------------------------------------------------------------------------------------


def test_images_are_chosen_without_copying() -> None:
    pixels = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 8, 8).contiguous()
    images = Images("x", pixels, torch.arange(10), ("0",) * 10)
    training, held_out = images.split(3)
    assert sorted([*training.labels.tolist(), *held_out.labels.tolist()]) == list(range(10))
    part = training.take([4, 0]).take(np.array([1]))
    assert part.pixels[0, 0, 0, 0] == part.labels[0] == training.labels[0]
    assert part.stored.data_ptr() == pixels.data_ptr()
    batches = list(training.to(torch.device("cpu")).batches(3))
    assert [len(labels) for _, labels in batches] == [3, 3, 1]
    assert torch.cat([p[:, 0, 0, 0] for p, _ in batches]).tolist() == training.labels.tolist()
    with pytest.raises(UsageError, match="cannot hold out 10 of 10"):
        images.split(10)
