"""The forms in which users give a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.onnx_nets import convolutions
from support.tflite_nets import Net, packed

from ofa_profiler import profile
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.models.base import tensor_specs
from ofa_profiler.models.formats import open_model
from ofa_profiler.models.sources import open_source, shape_texts


def test_bytes_of_both_formats(tmp_path: Path) -> None:
    model, _ = open_source(convolutions().SerializeToString(), tmp_path)
    assert (model.runtime, model.path) == ("onnxruntime", tmp_path / "model.onnx")
    net = Net()
    net.add("LOGISTIC", [net.tensor("x", (1, 4))], "y", (1, 4))
    model, _ = open_source(packed(["x"], ["y"], net), tmp_path)
    assert (model.runtime, model.path) == ("litert", tmp_path / "model.tflite")


@pytest.mark.parametrize("data", [b"", b"hello", b"1234TFL3"])
def test_bytes_of_no_model_are_not_kept(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        open_source(data, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", [3, [b"x"], bytearray(b"x"), convolutions()])
def test_other_types_are_refused(source: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"model is of the type {type(source).__name__}: give a file"):
        open_source(source, tmp_path)


@pytest.mark.parametrize("name", ["none.onnx", "none.tflite"])
def test_a_missing_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        open_source(tmp_path / name, tmp_path)


@pytest.mark.parametrize("shapes", [{"x": "1x3"}, {"x": 3}, (1, 3), [1, 3]])
def test_shapes_of_other_types_are_refused(shapes: Any) -> None:
    with pytest.raises(UsageError, match="shapes are sizes by the names of the inputs"):
        shape_texts(shapes)
    assert shape_texts({"x": (1, 3), "y": []}) == ["x=1x3", "y="]


@pytest.mark.parametrize("inputs", [[1], {"x": "text"}, {"x": [[1], [2, 3]]}, {"x": object()}])
def test_inputs_of_other_types_are_refused(inputs: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="inputs"):
        profile(model=convolutions().SerializeToString(), inputs=inputs, out=tmp_path)
    with pytest.raises(UsageError, match="'x' has the shape"):
        profile(model=convolutions().SerializeToString(), inputs={"x": np.ones(3)}, out=tmp_path)


def test_a_number_is_an_output(tmp_path: Path) -> None:
    net = Net()
    net.add("ABS", [net.tensor("x", ())], "y", ())
    model, feeds = open_source(packed(["x"], ["y"], net), tmp_path)
    assert [tensor.shape for tensor in tensor_specs(model.run(feeds))] == [()]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nets.py", "name its function, like nets:function"),
        ("https://example.org/net.onnx", "there is no such file"),
        ("https://example.org/net", "is an address; download the file"),
        ("net.pb", "there is no such file; give FILE.onnx"),
    ],
)
def test_what_is_no_file_of_a_model(path, words):
    with pytest.raises(InputFileError, match=words):
        open_model(Path(path))
