"""Folders on a disk: links, names and rights as they are found, and pairs of data sets."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("PIL")
from support.image_files import write_images

from ofa_profiler.errors import InputFileError, UsageError
from ofa_search.data.images import Images, load_images, refuse_shared_files
from ofa_search.data.sources import open_source
from ofa_search.data.tree import read_tree

Load = Callable[..., Images]
PNG = frozenset((".png",))


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return lambda path, *args, **how: load_images(path, *args, cache=tmp_path / "cache", **how)


def test_hidden_files_and_folders_of_tools_are_skipped_at_any_depth(tmp_path: Path) -> None:
    root = write_images(
        tmp_path / "photos",
        *("cat/1.png", "cat/.ipynb_checkpoints/1-checkpoint.png", "cat/@eaDir/1.png/thumb.png", "cat/._1.png"),
        *("dog/2.png", ".git/x.png", "__MACOSX/cat/1.png", "dog/__pycache__/1.png", "lost+found/1.png"),
    )
    tree = read_tree(root, PNG)
    assert list(tree.image_places()) == ["cat/1.png", "dog/2.png"]
    named = {folder.place for folder in tree.walk() if folder.problem}
    assert named == {"cat/@eaDir", "__MACOSX", "dog/__pycache__", "lost+found"}


def test_links_are_followed_except_in_circles(tmp_path: Path) -> None:
    root = write_images(tmp_path / "photos", "cat/1.png", "dog/1.png")
    (root / "cat" / "loop").symlink_to("..")
    (root / "self").symlink_to(".")
    (root / "nowhere").symlink_to("gone")
    write_images(tmp_path / "elsewhere", "1.png", "2.png")
    (root / "bird").symlink_to(tmp_path / "elsewhere")
    tree = read_tree(root, PNG)
    assert list(tree.image_places()) == ["bird/1.png", "bird/2.png", "cat/1.png", "dog/1.png"]
    assert {f.place: f.problem for f in tree.walk() if f.problem} == dict.fromkeys(
        ("cat/loop", "self"), "a link to a folder that it lies in"
    )


def test_links_to_each_other_end(tmp_path: Path) -> None:
    for one in range(5):
        for other in range(5):
            (tmp_path / str(one)).mkdir(exist_ok=True)
            if one != other:
                (tmp_path / str(one) / f"to-{other}").symlink_to(f"../{other}")
    assert sum(1 for _ in read_tree(tmp_path, PNG).walk()) < 2000


def test_an_unreadable_folder_is_named(tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_images(tmp_path / "photos", "a/1.png", "b/1.png", "c/1.png")
    scandir = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("/c"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    lines: list[str] = []
    assert load(root, tell=lines.append).classes == ("a", "b")
    assert lines[1:] == ["  left out: c: cannot be read (Permission denied)"]


def test_class_names_must_be_texts(tmp_path: Path, load: Load) -> None:
    root = write_images(tmp_path / "photos", "a/1.png", "b/1.png")
    (root / "b").rename(os.fsdecode(os.fsencode(root) + b"/b\xe9"))
    with pytest.raises(InputFileError, match=r"the name of the class 'b\\xe9' is not UTF-8; rename the folder"):
        load(root)


def test_file_names_may_be_any_bytes(tmp_path: Path, load: Load) -> None:
    root = write_images(tmp_path / "photos", "a/1.png", "b/1.png", "b/2.png")
    (root / "b" / "2.png").rename(os.fsdecode(os.fsencode(root) + b"/b/\xe9.png"))
    assert load(root).labels.tolist() == [0, 1, 1]


def test_classes_that_differ_only_in_case_are_told(tmp_path: Path, load: Load) -> None:
    root = write_images(tmp_path / "photos", "train/Cat/1.png", "train/dog/1.png", "test/cat/1.png", "test/dog/1.png")
    training, test = load(root), load(root, split="test")
    with pytest.raises(UsageError, match=r"has the class 'cat', which .*; 'Cat' differs only in"):
        test.with_classes(training.classes)
    write_images(root, "train/cat/1.png")
    lines: list[str] = []
    load(root, tell=lines.append)
    assert "  note: the classes 'Cat' and 'cat' differ only in case" in lines


def test_what_was_understood_is_told(tmp_path: Path, load: Load) -> None:
    root = write_images(tmp_path / "photos", "Training/a/1.png", "Training/b/1.png", "Training/b/2.png", "notes/a.txt")
    write_images(root, "Testing/a/3.png", "Testing/b/3.png", "val/x.png")
    lines: list[str] = []
    load(root, tell=lines.append)
    assert lines == [
        f"training images: {root} (train): 3 images of 2 classes (a, b), 1 to 2 each",
        "  not used for this: test (2 images of 2 classes)",
        "  left out: val: holds images, but no folder per class; put those of each class into a folder with its name",
        "  left out: notes: no image that can be read (1 .txt)",
    ]


def test_results_inside_the_images_are_no_class(tmp_path: Path, load: Load) -> None:
    root = write_images(tmp_path / "photos", "a/1.png", "b/1.png", "out/training.png", "a/more/training.png")
    assert load(root, exclude=[root / "out", root / "a" / "more", root / "nowhere"]).classes == ("a", "b")
    assert len(load(root, exclude=[root / "out", root / "a" / "more"])) == 2
    (root / "out" / "supernet.safetensors").write_bytes(b"")  # and those of an earlier training
    assert load(root).classes == ("a", "b")


def test_a_test_set_that_was_trained_on_is_refused(tmp_path: Path, load: Load) -> None:
    root = write_images(tmp_path / "photos", "train/a/1.png", "train/b/1.png", "val/a/2.png", "val/b/2.png")
    refuse_shared_files(load(root), load(root, split="test"))
    refuse_shared_files(load(root / "train"), load(root / "val", split="test"))
    (tmp_path / "same").symlink_to(root / "train")
    for same in (root / "train", tmp_path / "same"):
        with pytest.raises(UsageError, match="2 files with test images are files of training images"):
            refuse_shared_files(load(root), load(same, split="test"))


def test_images_without_classes_serve_calibration(tmp_path: Path, load: Load) -> None:
    root = write_images(tmp_path / "photos", "more/1.png", "more/2.png")
    assert len(load(root, split="unlabelled")) == 2
    assert len(load(root / "more", split="unlabelled")) == 2
    with pytest.raises(InputFileError, match="all images are in one class, 'more'"):
        load(root)


def test_nothing_readable_is_said_with_what_is_there(tmp_path: Path, load: Load) -> None:
    root = write_images(tmp_path / "photos", "cat/1.xcf", "data.zip")
    with pytest.raises(InputFileError, match=r"holds no images, found 1 \.zip, 1 \.xcf .unpack the archives."):
        load(root)


def test_descriptions_are_not_read(tmp_path: Path, load: Load) -> None:
    root = write_images(tmp_path / "photos", "train/1.png", "train/metadata.csv")
    with pytest.raises(InputFileError, match=r"no folder per class; put those .*metadata\.csv is not read"):
        load(root / "train")
    write_images(root, "train/a/1.png", "train/b/1.png")
    lines: list[str] = []
    load(root, tell=lines.append)
    assert lines[-1].endswith("no images: 1 metadata.csv (metadata.csv is not read: the classes are folders)")


def test_a_thousand_classes_are_understood_without_opening_a_file(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in range(1000):
        (tmp_path / "images" / f"n{label:08d}").mkdir(parents=True)
        (tmp_path / "images" / f"n{label:08d}" / "1.png").touch()
    monkeypatch.setattr(Path, "read_bytes", lambda _path: pytest.fail("a file was opened"))
    assert len(open_source(tmp_path / "images", "train").classes or ()) == 1000
