"""Parquet files of images as they are found: labels of many kinds, missing labels, files that are something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
pytest.importorskip("PIL")
import pyarrow.parquet as parquet  # noqa: E402
from support.image_files import encoded, write_images, write_parquet  # noqa: E402

from ofa_profiler.errors import InputFileError  # noqa: E402
from ofa_search.data.cifar10 import _MEANS, CIFAR10_CLASSES, is_cifar10  # noqa: E402
from ofa_search.data.images import Images, load_images  # noqa: E402

Load = Callable[..., Images]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return lambda path, **how: load_images(path, cache=tmp_path / "cache", **how)


def refusal(load: Load, path: Path, **how: object) -> str:
    with pytest.raises(InputFileError) as caught:
        load(path, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- splits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("cifar10-train.parquet", "cifar10-test.parquet"),
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("Train-0.parquet", "Test-0.parquet"),
    ],
)
def test_training_never_takes_the_test_file(train: str, test: str, tmp_path: Path, load: Load) -> None:
    write_parquet(tmp_path / "set" / train, [encoded()] * 3, [0, 1, 1])
    write_parquet(tmp_path / "set" / test, [encoded()] * 2, [1, 0])
    lines: list[str] = []
    assert load(tmp_path / "set", tell=lines.append).labels.tolist() == [0, 1, 1]
    assert load(tmp_path / "set", split="test").labels.tolist() == [1, 0]
    assert lines == [
        f"training images: {tmp_path / 'set'} (train): 3 images of 2 classes (0, 1), 1 to 2 each",
        "  not used for this: test (1 file)",
    ]


def test_a_test_split_without_labels_is_none(tmp_path: Path, load: Load) -> None:
    root = tmp_path / "imagenet" / "data"
    write_parquet(root / "train-00000-of-00001.parquet", [encoded()] * 2, [0, 1], names=["x", "y"])
    write_parquet(root / "validation-00000-of-00001.parquet", [encoded()] * 3, [1, 0, 1], names=["x", "y"])
    for number, labels in enumerate(([-1, -1], [None, None], None)):
        write_parquet(root / "test-00000-of-00001.parquet", [encoded()] * 2, labels, names=["x", "y"])  # type: ignore[arg-type]
        lines: list[str] = []
        assert load(root.parent, split="test", tell=lines.append).labels.tolist() == [1, 0, 1], number
        assert any("left out: test: no image has a label" in line for line in lines)
    (root / "validation-00000-of-00001.parquet").unlink()
    assert "no test-*.parquet or validation-*.parquet with labels (left out: test: no image has a label" in refusal(
        load, root.parent, split="test"
    )
    assert "no image has a label" in refusal(load, root / "test-00000-of-00001.parquet")
    assert len(load(root / "test-00000-of-00001.parquet", split="unlabelled")) == 2  # calibration needs none


def test_validation_and_test_files_are_not_joined(tmp_path: Path, load: Load) -> None:
    for split, count in (("train", 3), ("validation", 2), ("test", 1)):
        write_parquet(tmp_path / "set" / f"{split}-00000-of-00001.parquet", [encoded()] * count, [0] * count)
    assert len(load(tmp_path / "set", split="test")) == 1


def test_missing_shards_are_told(tmp_path: Path, load: Load) -> None:
    write_parquet(tmp_path / "set" / "train-00001-of-00003.parquet", [encoded()] * 2, [0, 1])
    lines: list[str] = []
    load(tmp_path / "set", tell=lines.append)
    assert lines[1:] == ["  note: train: 2 of 3 shards are missing (00000-of-00003, 00002-of-00003)"]


def test_shards_with_other_class_names_are_refused(tmp_path: Path, load: Load) -> None:
    write_parquet(tmp_path / "set" / "train-00000-of-00002.parquet", [encoded()], [0], names=["cat", "dog"])
    write_parquet(tmp_path / "set" / "train-00001-of-00002.parquet", [encoded()], [0], names=["dog", "cat"])
    assert "00001-of-00002.parquet: has other class names than train-00000-of-00002" in refusal(load, tmp_path / "set")
    write_parquet(tmp_path / "set" / "train-00001-of-00002.parquet", [encoded()], [0], column="labels")
    assert "has other columns than train-00000-of-00002.parquet" in refusal(load, tmp_path / "set")


def test_images_beside_nested_parquet_files_do_not_hide_them(tmp_path: Path, load: Load) -> None:
    write_parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet", [encoded()] * 2, [0, 1])
    write_images(tmp_path / "set", "assets/preview.png", "README.md")
    assert load(tmp_path / "set").labels.tolist() == [0, 1]


# --- columns ----------------------------------------------------------------------------------------------


def test_labels_that_are_texts_are_class_names(tmp_path: Path, load: Load) -> None:
    root = tmp_path / "set"
    write_parquet(root / "train-00000-of-00002.parquet", [encoded()] * 3, ["dog", "cat", "dog"])
    write_parquet(root / "train-00001-of-00002.parquet", [encoded()], ["bird"])
    images = load(root)
    assert images.classes == ("bird", "cat", "dog")
    assert images.labels.tolist() == [2, 1, 2, 0]
    path = write_parquet(tmp_path / "a.parquet", [encoded()] * 2, ["dog", None])
    assert "row 1: label is None" in refusal(load, path)


def test_columns_are_found_by_their_features(tmp_path: Path, load: Load) -> None:
    path = write_parquet(
        tmp_path / "a.parquet", [encoded()] * 2, [1, 0], column="leaf", image_column="scan", names=["ok", "rust"]
    )
    images = load(path)
    assert (images.classes, images.labels.tolist()) == (("ok", "rust"), [1, 0])


def test_a_column_of_bytes_is_read(tmp_path: Path, load: Load) -> None:
    parquet.write_table(pa.table({"image": [encoded(), encoded()], "label": [0, 1]}), tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet").labels.tolist() == [0, 1]


def test_paths_in_place_of_images_are_refused_at_once(tmp_path: Path, load: Load) -> None:
    path = write_parquet(tmp_path / "a.parquet", [None, None], [0, 1])
    assert "column img holds paths, not images; embed the image files" in refusal(load, path)
    parquet.write_table(parquet.read_table(path), path, write_statistics=False)
    assert "column img holds paths, not images" in refusal(load, path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
            "a Git LFS pointer: run `git lfs pull`",
        ),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"PK\x03\x04zip", "an archive; unpack it"),
        (b"PAR1 no", "not a parquet file, or damaged"),
        (bytes(257) + b"ustar\x0000", "an archive; unpack it"),
    ],
)
def test_what_a_file_is_instead_is_named(data: bytes, message: str, tmp_path: Path, load: Load) -> None:
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(data)
    assert message in refusal(load, tmp_path / "train-00000-of-00001.parquet")


# --- CIFAR-10 ---------------------------------------------------------------------------------------------


def test_only_cifar10_has_its_names() -> None:
    """Ten classes of 32 pixels, many of each, in the mean colours of CIFAR-10's; nothing else."""
    labels = np.repeat(np.arange(10), 500)
    colours = np.array(_MEANS)[labels].round().astype(np.uint8)
    pixels = np.broadcast_to(colours[:, :, None, None], (5000, 3, 32, 32))
    assert len(CIFAR10_CLASSES) == 10
    assert is_cifar10(pixels, labels)
    assert not is_cifar10(pixels, (labels + 1) % 10)
    assert not is_cifar10(pixels[:4999], labels[:4999])
    assert not is_cifar10(pixels[..., :28, :28], labels)
    assert not is_cifar10(pixels // 2, labels)
