"""Damaged and other files get one line, and never end the process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tflite_nets import Net, options, packed

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.models.inputs import feeds_for
from ofa_profiler.models.tflite_file import TfliteFile, read_tflite
from ofa_profiler.models.tflite_model import TfliteModel


def small() -> bytes:
    net = Net()
    x = net.tensor("x", (1, 4, 4, 2))
    weights = [net.weights("w", 3, 3, 3, 2), net.weights("b", 3)]
    net.add("CONV_2D", [x, *weights], "conv", (1, 4, 4, 3), options=options("Conv2DOptions", strideW=1, strideH=1))
    net.add("RESHAPE", ["conv", net.constant("sizes", [1, 48], "int32")], "flat", (1, 48))
    net.add("SOFTMAX", ["flat"], "y", (1, 48), options=options("SoftmaxOptions", beta=1.0))
    return packed(["x"], ["y"], net)


SMALL = small()


def test_the_small_file_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(SMALL)
    model = TfliteModel(path)
    (values,) = model.run(feeds_for(model.inputs, {})).values()
    assert values.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 and more bytes", "is not a TFLite file"),
        (SMALL[: len(SMALL) // 2], "damaged"),
        (SMALL[:8], "damaged"),
    ],
)
def test_other_files_get_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(data)
    with pytest.raises(InputFileError, match=words) as caught:
        TfliteModel(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_get_one_line(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "absent.tflite", "there is no such file"), (tmp_path, "cannot be read")):
        with pytest.raises(InputFileError, match=words):
            TfliteModel(path)


def test_a_file_above_2_gb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    with path.open("wb") as file:
        file.write(SMALL)
        file.truncate(2**31)  # sparse: takes no space
    with pytest.raises(InputFileError, match="larger than 2 GB"):
        TfliteModel(path)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert", None)
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.schema_py_generated", None)
    with pytest.raises(UsageError, match=r"pip install 'ofa-profiler\[litert\]'"):
        TfliteModel(tmp_path / "net.tflite")


def test_a_constant_that_is_shorter_than_its_shape_is_refused(tmp_path: Path) -> None:
    net = Net()
    net.add("ADD", [net.tensor("x", (4,)), net.constant("c", np.ones(4))], "y", (4,), options=options("AddOptions"))
    net.shapes["c"] = (400,)
    path = tmp_path / "net.tflite"
    path.write_bytes(packed(["x"], ["y"], net))
    with pytest.raises(InputFileError, match="size of its shape"):
        read_tflite(path)


def outcome(path: Path) -> tuple[TfliteFile | None, str]:
    """The file, or why it is refused."""
    try:
        return read_tflite(path), ""
    except InputFileError as error:
        return None, str(error)


changes = st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(changes=changes, length=st.one_of(st.just(len(SMALL)), st.integers(0, len(SMALL))))
def test_damage_is_found_or_harmless(
    changes: list[tuple[int, int]], length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is changed: the file is read with indices that exist, or refused in one line."""
    data = bytearray(SMALL)
    for position, value in changes:
        data[position] = value
    path = tmp_path_factory.getbasetemp() / "damaged.tflite"
    path.write_bytes(bytes(data[:length]))
    file, words = outcome(path)
    assert file is not None or words.startswith(f"{path}: ")
    assert "\n" not in words
    if file is not None:
        assert all(0 <= i < len(file.tensors) for op in file.operators for i in (*op.given, *op.outputs))
