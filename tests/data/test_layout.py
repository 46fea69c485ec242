"""What folders of images mean: the layouts of public data sets, by names alone."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.trees import paths_of, tree_of

from ofa_search.data.classes import NotUnderstood
from ofa_search.data.layout import Layout, understand
from ofa_search.data.words import is_keyword, splits_in

TWO = "{cat,dog}/{1,2}.jpg"


def layout_of(text: str) -> Layout:
    return understand(tree_of(paths_of(text)))


def classes_of(text: str) -> dict[str, dict[str, int]]:
    return {
        split: {name: len(files) for name, files in classes.items()}
        for split, classes in layout_of(text).splits.items()
    }


def refusal(text: str, use: str = "train") -> str:
    with pytest.raises(NotUnderstood) as caught:
        layout_of(text).chosen(use)
    return str(caught.value)


BOTH = {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TWO, {"all": BOTH}),
        (f"Training/{TWO} Testing/{TWO}", {"train": BOTH, "test": BOTH}),
        (f"TRAIN/{TWO} TEST/{TWO}", {"train": BOTH, "test": BOTH}),
        (f"Train/{TWO} Validation/{TWO}", {"train": BOTH, "validation": BOTH}),
        (f"train/{TWO} dev/{TWO} eval/{TWO}", {"train": BOTH, "validation": BOTH, "test": BOTH}),
        (f"training_set/training_set/{TWO} test_set/test_set/{TWO}", {"train": BOTH, "test": BOTH}),
        (f"seg_train/seg_train/{TWO} seg_test/seg_test/{TWO} seg_pred/seg_pred/1.jpg", {"train": BOTH, "test": BOTH}),
        (f"train_1/{TWO} train_2/{{cat,dog}}/3.jpg", {"train": {"cat": 3, "dog": 3}}),
        # beside other folders
        (f"train/{TWO} test/{TWO} annotations/a.xml", {"train": BOTH, "test": BOTH}),
        (f"x/train/{TWO} x/val/{TWO} x/x/{{train,val}}/{TWO}", {"train": BOTH, "validation": BOTH}),
        (f"Train/{TWO} Test/{{1,2}}.jpg Meta/{{1,2}}.jpg", {"train": BOTH}),
        (f"Training/{TWO} Test/{TWO} test-multiple/1.jpg", {"train": BOTH, "test": BOTH}),
        # wrappers
        (f"2750/{TWO}", {"all": BOTH}),
        (f"images/{TWO} meta/classes.txt readme.md", {"all": BOTH}),
        (f"car_data/car_data/{{train,test}}/{TWO}", {"train": BOTH, "test": BOTH}),
        (f"split/train/{TWO} split/val/{TWO} original/1.jpg", {"train": BOTH, "validation": BOTH}),
        (f"train_test_split/train/{TWO} train_test_split/test/{TWO}", {"train": BOTH, "test": BOTH}),
        # one folder more in each class
        ("{cat,dog}/images/{1,2}.jpg", {"all": BOTH}),
        ("cat/cat/{1,2}.jpg dog/dog/{1,2}.jpg", {"all": BOTH}),
        ("train/{cat,dog}/images/{1,2}.jpg val/images/{1,2}.jpg", {"train": BOTH}),
        # class first
        ("{cat,dog}/{train,test}/{1,2}.jpg", {"train": BOTH, "test": BOTH}),
        # splits by the names of files
        ("{cat,dog}/{train_1,train_2,test_1,test_2}.jpg", {"train": BOTH, "test": BOTH}),
        ("{cat,dog}/{test_1,val_2,3}.jpg", {"all": {"cat": 3, "dog": 3}}),
        ("{cat,dog}/ILSVRC2012_val_{1,2}.jpg", {"all": BOTH}),
        ("{cat,dog}/{1,test}.jpg", {"all": BOTH}),
        # the innermost folders are the classes
        ("pets/{cat,dog}/{1,2}.jpg birds/{owl,tit}/1.jpg", {"all": {**BOTH, "owl": 1, "tit": 1}}),
        # of different depth: the outermost
        ("cat/{1,2}.jpg dog/{puppies,old}/1.jpg", {"all": BOTH}),
        ("{cat,dog}/1.jpg {cat,dog}/more/2.jpg", {"all": BOTH}),
        # a class that is named like a split is a class where other splits have it too
        ("{train,val}/{bus,train}/{1,2}.jpg", {"train": {"bus": 2, "train": 2}, "validation": {"bus": 2, "train": 2}}),
        ("train/{bus,bullet_train}/{1,2}.jpg", {"train": {"bullet_train": 2, "bus": 2}}),
        # loose images
        (f"{TWO} loose.jpg", {"all": BOTH}),
    ],
)
def test_what_is_understood(text: str, expected: dict[str, dict[str, int]]) -> None:
    assert classes_of(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{1,2}.jpg", "holds images, but no folder per class"),
        ("images/{1,2}.jpg", "all images are in one class, 'images'"),
        ("data/images/{1,2}.jpg", "all images are in one class, 'images'"),
        ("dog/1.jpg cat/1.heic", "one class, 'dog': .*left out: cat: no image that can be read .1 .heic .*pillow-heif"),
        ("train/images/{1,2}.jpg train/labels/1.txt", "all images are in one class, 'images'"),
        (f"raw/{{color,grey,segmented}}/{TWO}", "raw: one level too high: 'cat' is in 'raw/color' and in 'raw/grey'"),
        (f"{{fold1,fold2,fold3}}/{TWO}", "one level too high: 'cat' is in 'fold1'"),
        (
            f"{{fold1,fold2}}/{{train,test}}/{TWO}",
            "one level too high: 2 folders have splits .'fold1', 'fold2'",
        ),
        (f"{{amazon,webcam}}/images/{TWO}", "one level too high: 'cat' is in 'amazon' and in 'webcam'"),
        (f"{TWO} backup/{TWO}", "backup: holds a folder 'cat' like the one beside it"),
        ("{train,test}/{1,2}.jpg", "no images for train"),
        (f"{TWO} test/{TWO}", "has test images, but no images for train: .*left out: cat: 2 images beside the split"),
        (f"{TWO} val/1.jpg", "no images for train"),
        (f"rps/{TWO} rps-test-set/{TWO} rps-validation/1.jpg", "has test images, but no images for train"),
        ("{bus,car,train}/{1,2}.jpg", "rename a class that is named like a split; .*train: holds images"),
        ("train/{cat,dog,test}/{1,2}.jpg", "its folder 'test' looks like a split"),
        ("train/{train,test}/{1,2}.jpg", "its folder '(train|test)' looks like a split"),
        (f"train/{{train,val}}/{TWO}", "its folder '(train|val)' looks like a split"),
        ("{trainA,trainB,testA,testB}/{1,2}.jpg", "'testA' and 'trainA' look like splits, not like classes"),
        ("{cat,dog}/{test_1,val_1}.jpg", "no images for train"),
        ("{cat,dog}/{train_1,test_1,2,3,4,5}.jpg", "4 images have names like those of splits, and 8 have not"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    refused = refusal(text)
    assert re.search(message, refused), refused


def test_images_to_test_with_are_the_test_split_or_else_the_validation_split() -> None:
    three = f"train/{TWO} val/{{cat,dog}}/1.jpg test/{{cat,dog}}/3.jpg"
    assert layout_of(three).chosen("test")[0] == "test"
    assert layout_of(three.replace("test/{cat,dog}/3.jpg", "test/3.jpg")).chosen("test")[0] == "validation"
    assert layout_of(TWO).chosen("test")[0] == "all"
    assert layout_of("test/{cat,dog}/3.jpg").chosen("test")[0] == "test"
    assert "no images for test" in refusal(f"train/{TWO}", "test")
    assert layout_of("train/{cat,dog}/1.jpg val/dog/1.jpg").chosen("test")[1] == {"dog": ("val/dog/1.jpg",)}


def test_what_is_left_out_is_named() -> None:
    text = f"a/train/{TWO} a/test/{TWO} a/logs/1.png a/notes/1.txt a/loose.jpg a/train/cat/{{1,2}}.heic a/b.zip"
    assert [str(entry) for entry in layout_of(text).remarks] == [
        "left out: a: 1 image beside the folders",
        "left out: a/logs: 1 image beside the split folders",
        "left out: a/notes: no image that can be read (1 .txt)",
        "left out: files that are no images: 2 .heic, 1 .zip"
        " (to read .heic: pip install pillow-heif) (unpack the archives)",
    ]


# --- random trees ---------------------------------------------------------------------------------------

_NAMES = st.sampled_from(
    ["cat", "dog", "a b", "train", "Training", "test", "val", "images", "1", "seg_test", "bullet_train", "trainA"]
)
_PATHS = st.lists(_NAMES, max_size=4).map(lambda parts: "/".join(parts))
_FILES = st.sampled_from(["1.jpg", "2.png", "train_1.jpg", "test.jpg", "x.txt", "y.heic"])


@given(st.lists(st.builds(lambda place, name: f"{place}/{name}".lstrip("/"), _PATHS, _FILES), max_size=14))
def test_any_tree_is_understood_without_overlap_or_refused(paths: list[str]) -> None:
    """Each image is in one class of one split at most, and no two classes are splits."""
    try:
        layout = understand(tree_of(paths))
    except NotUnderstood:
        return
    used = [path for classes in layout.splits.values() for files in classes.values() for path in files]
    assert len(used) == len(set(used))
    assert set(used) <= set(paths)
    assert all(files for classes in layout.splits.values() for files in classes.values())
    for classes in layout.splits.values():
        assert len({split for name in classes if is_keyword(name) for split in splits_in(name)}) < 2


@given(
    st.dictionaries(
        st.sampled_from(["train", "training_set", "test", "Testing", "val", "x-eval", "dev.2"]),
        st.sets(st.sampled_from(["cat", "dog", "bird", "a b"]), min_size=2),
        min_size=1,
    ),
    st.sampled_from(["", "data/", "a/b/"]),
    st.lists(st.sampled_from(["meta/a.txt", "logs/1.png", "figures/b.jpg"]), max_size=2),
)
def test_split_folders_are_read_as_hugging_face_reads_them(
    splits: dict[str, set[str]], above: str, beside: list[str]
) -> None:
    """Files of a split are those below a folder with its keyword; their folder is the label."""
    paths = [f"{above}{folder}/{name}/{n}.jpg" for folder, names in splits.items() for name in names for n in "12"]
    layout = understand(tree_of([*paths, *(above + path for path in beside)]))
    expected: dict[str, dict[str, set[str]]] = {}
    for path in paths:
        *_, folder, label, _ = path.split("/")
        (split,) = splits_in(folder)
        expected.setdefault(split, {}).setdefault(label, set()).add(path)
    assert {s: {name: set(files) for name, files in c.items()} for s, c in layout.splits.items()} == expected


@given(st.lists(st.sets(st.sampled_from("abcdefgh"), min_size=1), min_size=2, max_size=4))
def test_nested_classes_are_merged_only_if_their_names_differ(groups: list[set[str]]) -> None:
    paths = [f"g{place}/{name}/1.jpg" for place, names in enumerate(groups) for name in names]
    repeated = any(a & b for i, a in enumerate(groups) for b in groups[i + 1 :])
    single = all(len(names) == 1 for names in groups) and all(a == b for a, b in pairwise(groups))
    assume(not single)
    if repeated:
        with pytest.raises(NotUnderstood, match="one level too high"):
            understand(tree_of(paths))
    else:
        assert set(understand(tree_of(paths)).splits["all"]) == set().union(*groups)
