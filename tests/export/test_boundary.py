"""Ops that change the precision: their models in both runtimes and every encoding, in tables and kits."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnxruntime import InferenceSession, SessionOptions
from support import tflite_files
from support.kits import QUICK

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.devices import open_device
from ofa_profiler.errors import UsageError
from ofa_profiler.export import export_ops, for_device
from ofa_profiler.measuring.session import measure_into
from ofa_profiler.networks.boundary import boundary_op
from ofa_profiler.networks.op import Op
from ofa_profiler.protocol.encodings import ENCODINGS
from ofa_profiler.protocol.journal import Journal
from ofa_profiler.protocol.kit import run_record
from ofa_profiler.protocol.target import Target
from ofa_profiler.tables.row import Row

OPS = [boundary_op(kind, (4, 4, 8)) for kind in ("quantize", "dequantize")]


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_onnxruntime_runs_the_operator(encoding, tmp_path):
    there, back = export_ops(OPS, Target(precision="int8", encoding=encoding.name), cache_dir=tmp_path)
    x = np.random.default_rng(0).uniform(-4, 4, (1, 8, 4, 4)).astype(np.float32)
    options = SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    (integers,) = InferenceSession(there.path, options).run(None, {"input": x})
    assert integers.dtype == back.inputs[0].dtype == encoding.activations
    assert [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node] == ["QuantizeLinear"]
    (again,) = InferenceSession(back.path).run(None, {"input": integers})
    np.testing.assert_allclose(again, x, atol=8 / 255)


def test_litert_runs_the_operator(tmp_path):
    there, back = (model.path.read_bytes() for model in export_ops(OPS, Target("litert", "int8"), cache_dir=tmp_path))
    x = np.random.default_rng(0).uniform(-4, 4, (1, 4, 4, 8)).astype(np.float32)
    for data, (source, result) in ((there, (np.float32, np.int8)), (back, (np.int8, np.float32))):
        loaded = tflite_files.load(data)
        assert loaded.get_input_details()[0]["dtype"] == source
        assert loaded.get_output_details()[0]["dtype"] == result
        np.testing.assert_allclose(tflite_files.run(data, x), x, atol=8 / 255)
    assert [[node.name for node in tflite_files.operators(data)] for data in (there, back)] == [
        ["QUANTIZE"],
        ["DEQUANTIZE"],
    ]


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_an_agent_measures_them_and_a_table_keeps_them(runtime, tmp_path):
    with open_device("local") as device:
        target = for_device(Target(runtime, "int8"), device.describe())
        models = export_ops(OPS, target, with_encodings=True, cache_dir=tmp_path)
        settings = replace(QUICK, target=target)
        with Journal(None, run_record(models, settings, {})) as journal:
            measure_into(journal, device, models, settings)
            found = journal.replay.measurements()
    rows = [Row.from_op(op, batch=1, precision="int8", samples_ms=found[op.key].samples_ms) for op in OPS]
    LatencyTable("t", tuple(rows)).save(tmp_path / "t.csv")
    table = LatencyTable.load(tmp_path / "t.csv")
    assert [row.description for row in table.rows] == OPS
    assert all(table.latency_ms(op) > 0 for op in OPS)


def test_json_there_and_back():
    assert [Op.from_json(json.loads(json.dumps(op.to_json()))) for op in OPS] == OPS


def test_a_space_lists_those_between_its_slots():
    space = get_space("cifar-mbv3-mixed").at(24)
    keys = {op.key for op in space.boundary_ops}
    assert {"quantize-input:24x24x3", "dequantize-input:10", "dequantize-input:24x24x16"} <= keys


def test_float_models_have_none(tmp_path):
    with pytest.raises(UsageError, match="Quantize"):
        export_ops(OPS, Target("litert"), cache_dir=tmp_path)
