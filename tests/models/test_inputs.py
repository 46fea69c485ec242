"""Shapes and values of the inputs of a user's model."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.models.base import ModelInput
from ofa_profiler.models.inputs import feeds_for, parse_shapes, read_inputs

IMAGE = ModelInput("image", "float32", ("batch", 3, "?", "?"))
IDS = ModelInput("ids", "int64", ("batch", "tokens"), range=(0, 30))
MASK = ModelInput("mask", "int64", ("batch", "tokens"))
FIXED = ModelInput("x", "float32", (1, 4))

sizes = st.lists(st.integers(1, 2**31 - 1), max_size=5).map(tuple)


@given(st.text("ab=/:. ", min_size=1, max_size=8), sizes)
def test_shapes_are_parsed_for_any_name(name, shape):
    text = f"{name}={'x'.join(map(str, shape))}"
    assert parse_shapes([text], [ModelInput(name, "float32", ("?",) * len(shape))]) == {name: shape}


def test_a_model_with_one_input_needs_no_name():
    assert parse_shapes(["1x3x32x32"], [IMAGE]) == {"image": (1, 3, 32, 32)}


@given(st.text(max_size=12))
def test_any_other_text_is_refused_in_one_line(text):
    valid = all(re.fullmatch("[0-9]+", part.strip()) for part in text.split("x")) if text.strip() else True
    if valid and all(0 < int(part) < 2**31 for part in text.split("x") if part.strip()):
        assert len(parse_shapes([f"image={text}"], [IMAGE])["image"]) == (text.count("x") + 1 if text.strip() else 0)
        return
    with pytest.raises(UsageError) as caught:
        parse_shapes([f"image={text}"], [IMAGE])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["1x3"], "which input"),
        (["img=1x3"], "no input 'img'"),
        (["ids=1x3", "ids=1x3"], "twice"),
        (["ids=1x0"], "not like"),
        (["ids=1x-3"], "not like"),
        (["ids=1x²"], "not like"),
        (["ids=1x99999999999"], "not like"),
    ],
)
def test_wrong_shapes(texts, words):
    with pytest.raises(UsageError, match=words):
        parse_shapes(texts, [IDS, MASK])


def test_open_dimensions_of_one_name_have_one_size():
    feeds = feeds_for([IDS, MASK], {"ids": (2, 7)})
    assert feeds["mask"].shape == (2, 7)
    assert feeds["ids"].min() >= 0
    assert feeds["ids"].max() < 30
    assert set(np.unique(feeds["mask"])) <= {0, 1}
    with pytest.raises(UsageError, match=r"'mask' has the shape batchxtokens with batch=2, tokens=7, not 2x8"):
        feeds_for([IDS, MASK], {"ids": (2, 7), "mask": (2, 8)})


def test_an_open_shape_is_asked_for_by_name():
    with pytest.raises(UsageError, match=r"'image' has the open shape batchx3x\?x\?: give --shape image=Nx3xNxN"):
        feeds_for([IMAGE], {})


def test_a_fixed_shape_cannot_be_changed():
    with pytest.raises(UsageError, match="'x' has the shape 1x4, not 2x4"):
        feeds_for([FIXED], {"x": (2, 4)})


def test_8_bit_integers_have_all_values_and_truth_values_are_true():
    feeds = feeds_for([ModelInput("a", "uint8", (1, 5000)), ModelInput("b", "bool", ())], {})
    assert (feeds["a"].min(), feeds["a"].max()) == (0, 255)
    assert feeds["b"].shape == ()
    assert feeds["b"].all()


def test_real_values_are_used_and_converted(tmp_path):
    path = tmp_path / "in.npz"
    np.savez(path, ids=np.arange(6, dtype=np.int32).reshape(1, 6))
    feeds = feeds_for([IDS, MASK], {}, read_inputs(path))
    assert feeds["ids"].dtype == np.int64
    assert feeds["ids"].tolist() == [[0, 1, 2, 3, 4, 5]]
    assert feeds["mask"].shape == (1, 6)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.zeros(1)}, "has the inputs 'x'"),
        ({"x": np.zeros((1, 5))}, "has the shape 1x4, not 1x5"),
        ({"x": np.zeros((1, 4), complex)}, "is complex128"),
    ],
)
def test_wrong_arrays(arrays, words):
    with pytest.raises(UsageError, match=words):
        feeds_for([FIXED], {}, arrays)
    with pytest.raises(UsageError, match="does not hold"):
        feeds_for([ModelInput("i", "int8", (1,))], {}, {"i": np.array([300])})


@given(st.binary(max_size=200))
def test_files_that_are_no_npz_are_refused_in_one_line(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.npz"
        path.write_bytes(data)
        with pytest.raises(InputFileError) as caught:
            read_inputs(path)
    assert "\n" not in str(caught.value)


def test_damaged_objects_and_nameless_arrays(tmp_path):
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    with pytest.raises(InputFileError, match="Python objects"):
        read_inputs(tmp_path / "objects.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(InputFileError, match="is no NPZ file"):
        read_inputs(tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InputFileError, match="without a name"):
        read_inputs(tmp_path / "one.npy")
    with pytest.raises(InputFileError, match="no such file"):
        read_inputs(tmp_path / "none.npz")
    np.savez(tmp_path / "good.npz", x=np.arange(5000))
    data = bytearray((tmp_path / "good.npz").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "bad.npz").write_bytes(data)
    with pytest.raises(InputFileError, match="damaged"):
        read_inputs(tmp_path / "bad.npz")


def test_a_fresh_process_makes_up_the_same_values():
    code = (
        "import hashlib; from ofa_profiler.models.base import ModelInput as M; "
        "from ofa_profiler.models.inputs import feeds_for as f; "
        "v = f([M('a', 'float32', (3, 9)), M('b', 'int32', (5,), (2, 90))], {}); "
        "print(hashlib.sha256(b''.join(x.tobytes() for x in v.values())).hexdigest())"
    )
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 1
