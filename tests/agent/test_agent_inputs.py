"""What models are given: several inputs, integers, and the same values every time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.embedding import IDS, OFFSET, embedding_onnx, embedding_tflite
from support.kits import QUICK, SHAPE, bytes_model, conv_model, make_kit, run_agent, visits

from device_agents.ofa_agent.inputs import arrays, descriptions, values
from ofa_profiler.protocol.target import Target

RUNTIMES = [("onnxruntime", embedding_onnx, "int64"), ("litert", embedding_tflite, "int32")]


def measured(tmp_path: Path, runtime: str, data: bytes, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    """The first visit of a model whose manifest describes these inputs."""
    kit = make_kit(tmp_path / "kit", [bytes_model(tmp_path, "op", data)], replace(QUICK, target=Target(runtime)))
    manifest = json.loads((kit / "manifest.json").read_text())
    (entry,) = manifest["models"]
    entry.pop("input_shape", None)
    entry["inputs"] = inputs
    (kit / "manifest.json").write_text(json.dumps(manifest))
    done = run_agent(kit)
    assert done.returncode == 0, done.stderr
    return visits(done.stdout)["op"][0]


@pytest.mark.parametrize(("runtime", "model", "dtype"), RUNTIMES)
@pytest.mark.parametrize("reverse", [False, True])
def test_two_inputs_one_of_them_integers(tmp_path, runtime, model, dtype, reverse):
    inputs = [{**IDS, "dtype": dtype}, OFFSET]
    visit = measured(tmp_path, runtime, model(), inputs[::-1] if reverse else inputs)
    assert visit["status"] == "ok", visit


@pytest.mark.parametrize(("runtime", "model", "dtype"), RUNTIMES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "other"}, "has an input 'ids', but the kit describes other, offset"),
        ({"dtype": "float32"}, "the kit describes float32 [1, 4]"),
        ({"shape": [1, 5]}, "[1, 4], but the kit describes"),
        ("alone", "has 2 inputs (ids, offset), but the kit describes 1"),
    ],
)
def test_a_model_with_other_inputs_fails_alone(tmp_path, runtime, model, dtype, change, words):
    ids = {**IDS, "dtype": dtype}
    inputs = [ids] if change == "alone" else [{**ids, **change}, OFFSET]
    visit = measured(tmp_path, runtime, model(), inputs)
    assert visit["status"] == "failed"
    assert words in visit["error"]


def test_an_index_that_is_out_of_range_would_be_noticed(tmp_path):
    """So the test above shows that the range is kept."""
    visit = measured(tmp_path, "onnxruntime", embedding_onnx(), [{**IDS, "dtype": "int64", "range": [90, 99]}, OFFSET])
    assert "out of data bounds" in visit["error"]


def test_a_manifest_of_an_earlier_version_is_read(tmp_path):
    kit = make_kit(tmp_path / "kit", [conv_model(tmp_path, "conv")])
    manifest = json.loads((kit / "manifest.json").read_text())
    (entry,) = manifest["models"]
    entry.pop("inputs", None)
    entry["input_shape"] = list(SHAPE)
    (kit / "manifest.json").write_text(json.dumps(manifest))
    assert visits(run_agent(kit).stdout)["conv"][0]["status"] == "ok"


def test_floats_are_the_same_bytes_as_ever():
    (array,) = arrays(np, descriptions({"input_shape": [1, 3, 5, 5]}), [("input", "float32", [1, 3, 5, 5])])
    assert array.dtype == np.float32
    expected = np.random.RandomState(0).uniform(-1, 1, (1, 3, 5, 5)).astype("float32")
    np.testing.assert_array_equal(array, expected)
    assert hashlib.sha256(array.astype("<f4").tobytes()).hexdigest().startswith("85d9309926317e86")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_no_float_is_denormal(dtype):
    array = values(np, dtype, [1000, 1000], {}, 0)
    assert array.dtype == dtype
    assert abs(array).min() >= np.finfo(dtype).tiny
    assert abs(array).max() <= 1


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"])
def test_integers_are_valid_indices_of_whatever_it_is(dtype):
    found = [("input", dtype, [3, 4]), ("scalar", dtype, [])]
    described = [{"name": name, "dtype": dtype, "shape": shape} for name, _, shape in found]
    for array, (_, _, shape) in zip(arrays(np, described, found), found, strict=True):
        assert array.dtype == dtype
        assert list(array.shape) == shape
        assert 0 <= array.min() <= array.max() <= 1


def test_inputs_that_look_alike_get_different_values():
    found = [("query", "float32", [2, 3]), ("key", "float32", [2, 3])]
    described = [{"name": name, "dtype": dtype, "shape": shape} for name, dtype, shape in found]
    query, key = arrays(np, described, found)
    assert not np.array_equal(query, key)
    again = arrays(np, described, found[::-1])
    np.testing.assert_array_equal(again[::-1], [query, key])
