"""Damaged and other files, and inputs that are not supported, get one line."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from support.onnx_nets import FLOAT, convolutions, network, saved

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.models.formats import open_model
from ofa_profiler.models.inputs import feeds_for

SMALL = convolutions(2, channels=2, size=6).SerializeToString()


def refused(path: Path) -> str:
    with pytest.raises(InputFileError) as caught:
        open_model(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\x00\x00\x00\x00ORTM", "onnxruntime's own format"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"PK\x03\x04 and more", "ZIP archive"),
        (b"\x80\x02ctorch\n", "pickle"),
        (b'{"nodes": []}', "JSON"),
        (SMALL[: len(SMALL) // 2], "damaged"),
        (b"\x08\x08", "damaged"),
    ],
)
def test_other_files(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    assert words in refused(path)


def test_missing_files_folders_and_other_suffixes(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent.onnx")
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    assert "cannot be read" in refused(folder)
    other = tmp_path / "net.pt"
    other.write_bytes(b"PK")
    assert ".onnx" in refused(other)


def external(folder: Path) -> tuple[Path, onnx.ModelProto]:
    path = folder / "net.onnx"
    onnx.save_model(convolutions(2), path, save_as_external_data=True, location="net.data", size_threshold=16)
    return path, onnx.load(path, load_external_data=False)


def test_missing_and_short_external_data(tmp_path: Path) -> None:
    path, _ = external(tmp_path)
    data = tmp_path / "net.data"
    data.write_bytes(data.read_bytes()[:1000])
    refused(path)
    data.unlink()
    assert "needs the file 'net.data'" in refused(path)


@pytest.mark.parametrize("where", ["../net.data", "/etc/passwd", "a/../../net.data", "", "a\0b", "x" * 5000])
def test_external_data_elsewhere(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path, model = external(folder)
    (tmp_path / "net.data").write_bytes((folder / "net.data").read_bytes())
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = where
    path.write_bytes(model.SerializeToString())
    assert "weights" in refused(path)


def test_more_than_two_gigabytes(tmp_path: Path) -> None:
    path, model = external(tmp_path)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "length":
                entry.value = str(2**31)
    path.write_bytes(model.SerializeToString())
    assert "2 GB" in refused(path)


def test_operators_and_opsets_that_the_runtime_does_not_know(tmp_path: Path) -> None:
    unknown = network([helper.make_node("Sparkle", ["x"], ["y"], domain="com.example")], {"x": (FLOAT, (1,))}, ["y"])
    unknown.opset_import.append(helper.make_opsetid("com.example", 1))
    assert "Sparkle" in refused(saved(unknown, tmp_path))
    assert "opset" in refused(saved(convolutions(opset=99), tmp_path)).lower()


def test_inputs_that_are_no_tensors_of_numbers(tmp_path: Path) -> None:
    text = network(
        [helper.make_node("StringNormalizer", ["words"], ["y"])], {"words": (TensorProto.STRING, (2,))}, ["y"]
    )
    text.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    assert "'words' is text" in refused(saved(text, tmp_path))
    parts = network([helper.make_node("ConcatFromSequence", ["parts"], ["y"], axis=0)], {}, ["y"])
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, (2,)))
    parts.graph.input.append(helper.make_value_info("parts", kind))
    assert "'parts' is no tensor but of the kind 'sequence'" in refused(saved(parts, tmp_path))
    anything = network([helper.make_node("Relu", ["x"], ["y"])], {}, ["y"])
    anything.graph.input.append(helper.make_tensor_value_info("x", FLOAT, None))
    assert "'x' has no shape" in refused(saved(anything, tmp_path))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(SMALL) - 1), value=st.integers(0, 255), end=st.integers(1, 3 * len(SMALL)))
@example(place=97, value=128, end=622)  # a name that is not UTF-8
def test_mutated_files_work_or_get_one_line(tmp_path: Path, place: int, value: int, end: int) -> None:
    path = tmp_path / "net.onnx"
    data = bytearray(SMALL)
    data[place] = value
    path.write_bytes(data[:end])
    reason = ""
    try:
        model = open_model(path)
        feeds = feeds_for(model.inputs, {})
        model.run(feeds)
        assert model.blocks(feeds, this_machine=False)
    except UsageError as error:
        reason = str(error)
    assert "\n" not in reason
