"""What a user's model needs of the agent: exact values, spans, open dimensions, and the profile of its runtime."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from support.embedding import IDS, OFFSET, embedding_onnx, embedding_tflite
from support.kits import QUICK, conv_model, records, run_agent, visits

from device_agents.ofa_agent.copies import of_weights
from device_agents.ofa_agent.inputs import arrays, values
from device_agents.ofa_agent.traces import kernels_of
from ofa_profiler.models.base import Feed, TimedModel
from ofa_profiler.models.timed import timed_model
from ofa_profiler.networks.tensors import Span, TensorSpec
from ofa_profiler.protocol.journal import read_journal
from ofa_profiler.protocol.kit import run_record, write_kit
from ofa_profiler.protocol.model_file import Model
from ofa_profiler.protocol.target import Target


def branching() -> bytes:
    """`x` has an open size. The `If`, whose condition is `flag`, has an Exp of its own; the scalar `k` is added."""
    exp = helper.make_graph(
        [helper.make_node("Exp", ["x"], ["e"], "inner")],
        "then",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
    )
    raising = helper.make_graph(
        [helper.make_node("Gather", ["x", "far"], ["g"], "out_of_range")],
        "else",
        [],
        [helper.make_tensor_value_info("g", TensorProto.FLOAT, None)],
        [helper.make_tensor("far", TensorProto.INT64, [1], [10**6])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("If", ["flag"], ["chosen"], "branch", then_branch=exp, else_branch=raising),
            helper.make_node("Softmax", ["chosen"], ["soft"], "soft"),
            helper.make_node("MatMul", ["soft", "x"], ["product"], "product"),
            helper.make_node("Pow", ["product", "k"], ["y"], "power"),
        ],
        "branching",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
            helper.make_tensor_value_info("k", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def feeds(flag: bool = True) -> tuple[Feed, ...]:
    x = TensorSpec("x", "float32", (64, 64))
    return (
        Feed(x, span=Span(2.0, 3.0)),
        Feed.exact("flag", np.array(flag)),
        Feed.exact("k", np.array(2.0, np.float32)),
    )


def open_tflite() -> bytes:
    """The embedding with an open number of ids."""
    model = schema.ModelT.InitFromPackedBuf(embedding_tflite(), 0)
    for tensor in model.subgraphs[0].tensors:
        if tensor.shape[0] == 1:
            tensor.shapeSignature = [1, -1, *tensor.shape[2:]]
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def kit_of(folder: Path, *models: Model, runtime: str = "onnxruntime", profile: str | None = None) -> Path:
    settings = replace(QUICK, target=Target(runtime))
    write_kit(folder, models, run_record(models, settings, {}, profile=profile))
    return folder


def profiles(text: str) -> list[dict[str, Any]]:
    return [record for record in records(text) if record["type"] == "profile"]


@pytest.mark.parametrize("flag", [True, False])
def test_open_dimensions_scalars_and_exact_truth_values(tmp_path: Path, flag: bool) -> None:
    """The branch that the value of `flag` chooses runs: the other one raises an error."""
    model = timed_model("net", TimedModel(branching(), feeds(flag)), ".onnx", tmp_path)
    visit = visits(run_agent(kit_of(tmp_path / "kit", model)).stdout)["net"][0]
    assert visit["status"] == ("ok" if flag else "failed"), visit
    assert flag or "out of data bounds" in visit["error"]


def test_exact_indices_are_used(tmp_path: Path) -> None:
    for row, status in ((3, "ok"), (10**6, "failed")):
        ids = np.full(IDS["shape"], row, np.int64)
        offset = Feed(TensorSpec(OFFSET["name"], OFFSET["dtype"], tuple(OFFSET["shape"])), span=Span(0.0, 0.0))
        timed = TimedModel(embedding_onnx(), (Feed.exact(IDS["name"], ids), offset))
        kit = kit_of(tmp_path / status, timed_model("op", timed, ".onnx", tmp_path))
        assert visits(run_agent(kit).stdout)["op"][0]["status"] == status


def test_litert_takes_exact_values_too(tmp_path: Path) -> None:
    ids = np.zeros(IDS["shape"], np.int32)
    offset = Feed(TensorSpec(OFFSET["name"], OFFSET["dtype"], tuple(OFFSET["shape"])), span=Span(-2.0, 5.0))
    timed = TimedModel(embedding_tflite(), (Feed.exact(IDS["name"], ids), offset))
    model = timed_model("op", timed, ".tflite", tmp_path)
    done = run_agent(kit_of(tmp_path / "kit", model, runtime="litert", profile="op"))
    assert visits(done.stdout)["op"][0]["status"] == "ok"
    (profile,) = profiles(done.stdout)
    assert profile["kernels"] is None
    assert profile["why"] == "litert has no profile of its own"


@pytest.mark.parametrize("length", [4, 9])
def test_litert_resizes_open_dimensions(tmp_path: Path, length: int) -> None:
    ids = Feed.exact(IDS["name"], np.zeros((1, length), np.int32))
    offset = Feed(TensorSpec("offset", "float32", (1, length, OFFSET["shape"][-1])), span=Span(-1.0, 1.0))
    model = timed_model("op", TimedModel(open_tflite(), (ids, offset)), ".tflite", tmp_path)
    visit = visits(run_agent(kit_of(tmp_path / "kit", model, runtime="litert")).stdout)["op"][0]
    assert visit["status"] == "ok", visit


@pytest.mark.parametrize("damage", [b"", b"\1" * 8, None])
def test_damaged_values_fail_alone_and_in_words(tmp_path: Path, damage: bytes | None) -> None:
    damaged = timed_model("net", TimedModel(branching(), feeds()), ".onnx", tmp_path / "cache")
    kit = kit_of(tmp_path / "kit", damaged, conv_model(tmp_path, "conv"), profile="net")
    path = kit / "models" / damaged.values["k"].name
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    done = run_agent(kit)
    assert done.returncode == 0
    found = visits(done.stdout)
    assert path.name in found["net"][0]["error"]
    assert found["conv"][0]["status"] == "ok"
    assert path.name in profiles(done.stdout)[0]["why"]
    repaired = run_agent(kit_of(tmp_path / "again", damaged), "--repair")
    assert visits(repaired.stdout)["net"][0]["status"] == "ok"


def test_a_host_is_asked_to_send_damaged_values_again(tmp_path: Path) -> None:
    model = timed_model("net", TimedModel(branching(), feeds()), ".onnx", tmp_path / "cache")
    kit = kit_of(tmp_path / "kit", model)
    (kit / "models" / model.values["k"].name).unlink()
    done = run_agent(kit, "--repair")
    assert done.returncode == 1
    assert records(done.stdout)[-1]["transient"] is True


def test_the_profile_of_onnxruntime(tmp_path: Path) -> None:
    model = timed_model("net", TimedModel(branching(), feeds()), ".onnx", tmp_path)
    kit = kit_of(tmp_path / "kit", model, conv_model(tmp_path, "conv"), profile="net")
    done = run_agent(kit, env={"TMPDIR": str(tmp_path)})
    (profile,) = profiles(done.stdout)
    kinds = [kernel["kind"] for kernel in profile["kernels"]]
    assert kinds == ["If", "Softmax", "MatMul", "Pow"]  # the Exp is a part of the If
    assert 5 <= profile["runs"] <= 200
    assert 0 < sum(kernel["ns"] for kernel in profile["kernels"]) <= profile["whole_ns"]
    assert all(kernel["calls"] == 1 for kernel in profile["kernels"])
    assert not list(tmp_path.glob("ofa-agent-*"))  # the trace is gone
    replay, _ = read_journal(kit / "results.jsonl")
    assert replay.profile is not None
    assert replay.profile.kernels is not None
    assert [kernel.kind for kernel in replay.profile.kernels] == kinds
    assert replay.run.profile == "net"


def test_a_profile_is_made_once(tmp_path: Path) -> None:
    kit = kit_of(tmp_path / "kit", conv_model(tmp_path, "conv"), profile="conv")
    assert records(run_agent(kit, "--pause-after", "1").stdout)[-1]["type"] == "paused"
    assert run_agent(kit).returncode == 0
    text = (kit / "results.jsonl").read_text()
    assert [profile["key"] for profile in profiles(text)] == ["conv"]
    assert len(visits(text)["conv"]) >= 2


def test_a_wrong_key_is_refused_in_words(tmp_path: Path) -> None:
    kit = kit_of(tmp_path / "kit", conv_model(tmp_path, "conv"), profile="conv")
    manifest = json.loads((kit / "manifest.json").read_text())
    (kit / "manifest.json").write_text(json.dumps({**manifest, "profile": "other"}))
    done = run_agent(kit)
    assert done.returncode == 1
    assert "manifest.json" in done.stderr


def event(name: str, kind: str, begin: int, duration: int, index: int = 0) -> Mapping[str, Any]:
    args = {"op_name": kind, "node_index": str(index)}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": begin, "dur": duration, "args": args}


END = {"cat": "Session", "name": "model_run", "ts": 0, "dur": 1}


def trace(*events: Mapping[str, Any]) -> list[str]:
    return ["[\n", *(f"{json.dumps(one)},\n" for one in events), "]\n"]


def test_equal_names_are_two_kernels_and_warm_up_is_left_out() -> None:
    warm = [event("a", "Relu", 0, 900, 0), event("a", "Relu", 900, 900, 1), END]
    runs = [[event("a", "Relu", 0, n, 0), event("a", "Relu", 20, 2 * n, 1), END] for n in (1, 9, 3)]
    found = kernels_of(trace(*warm, *(one for run in runs for one in run)), 3)
    assert found == [
        {"name": "a", "kind": "Relu", "ns": 3000, "calls": 1},
        {"name": "a", "kind": "Relu", "ns": 6000, "calls": 1},
    ]


def test_a_loop_in_a_branch_counts_once() -> None:
    one = [
        event("before", "Conv", 0, 0),
        event("body", "Add", 2, 1),
        event("body", "Add", 3, 1),
        event("loop", "Loop", 1, 4),
        event("branch", "If", 1, 5),
        event("after", "Conv", 7, 2),
    ]
    found = kernels_of(trace(*one, END, *one, END), 2)
    assert [(kernel["name"], kernel["ns"]) for kernel in found] == [("before", 0), ("branch", 5000), ("after", 2000)]


FLOATS = st.floats(-(2.0**99), 2.0**99, width=32)


@given(FLOATS, FLOATS, st.sampled_from([(), (1,), (3, 5)]))
def test_floats_lie_in_their_span_and_none_is_denormal(one: float, other: float, shape: tuple[int, ...]) -> None:
    low, high = sorted((one, other))
    array = values(np, "float32", list(shape), {"span": [low, high]}, 0)
    assert array.shape == shape
    assert array.dtype == np.float32
    tiny = np.finfo(np.float32).tiny
    assert ((abs(array) >= tiny) | (array == 0)).all()
    assert ((array >= low - tiny) & (array <= high + tiny)).all()


def test_small_half_floats() -> None:
    array = values(np, "float16", [1000], {"span": [-1e-3, 1e-3]}, 0)
    assert ((abs(array) >= np.finfo(np.float16).tiny) | (array == 0)).all()
    assert len(np.unique(array)) > 100


@given(st.sampled_from(["float32", "int64", "bool", "float16"]), st.lists(st.integers(1, 4), max_size=3))
def test_exact_values_come_back(dtype: str, shape: list[int]) -> None:
    wanted = (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 3).astype(dtype)
    described = [{"name": "x", "dtype": dtype, "shape": shape, "data": wanted.tobytes()}]
    (found,) = arrays(np, described, [("x", dtype, ["n", None, -1][: len(shape)])])
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)
    with pytest.raises(ValueError, match="the exact values of the input 'x' have"):
        arrays(np, [{**described[0], "data": wanted.tobytes() + b"x"}], [("x", dtype, shape)])


def test_the_cache_of_timed_models_is_kept(tmp_path: Path) -> None:
    timed = TimedModel(b"some model", (Feed.exact("k", np.arange(6, dtype=np.int32).reshape(2, 3).T),))
    model = timed_model("op", timed, ".onnx", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert timed_model("op", timed, ".onnx", tmp_path) == model
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    content = np.array([0, 3, 1, 4, 2, 5], "<i4").tobytes()  # C order of the transposed array
    assert model.values["k"].name == f"{hashlib.sha256(content).hexdigest()}.bin"
    assert model.values["k"].read_bytes() == content
    assert model.path.read_bytes() == b"some model"


def test_a_model_runs_in_turns_on_copies_of_its_inputs(tmp_path: Path) -> None:
    """As many as the spread has room for; the model that the runtime profiles, a whole network, has one."""
    from device_agents.ofa_agent.runtimes.onnxruntime import Runtime

    bindings = []

    class Counting(Runtime):  # type: ignore[misc]
        def _binding(self, *arguments: Any) -> Any:
            bindings.append(super()._binding(*arguments))
            return bindings[-1]

    runtime = Counting({"provider": None, "threads": 1}, spare_core=True)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "relu",
            [helper.make_tensor_value_info("x", 1, [4])],
            [helper.make_tensor_value_info("y", 1, [4])],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    inputs = [{"name": "x", "dtype": "float32", "shape": [4]}]
    for spread_bytes, copies in ((0, 1), (31, 1), (100, 3), (10**9, 64)):
        bindings.clear()
        runtime.spread_bytes = spread_bytes
        run = runtime.load(model.SerializeToString(), inputs)
        for _ in range(2 * copies):
            run()
        assert len(bindings) == copies
    given = [binding.given[0] for binding in bindings]
    assert len({array.ctypes.data for array in given}) == 64
    results = [binding.bound[1].numpy() for binding in bindings]
    assert all((result == given[0].clip(0)).all() for result in results)


@pytest.mark.parametrize(
    ("weight_bytes", "n_bytes", "count"),
    [(0, 10, 1), (32_000_000, 10, 1), (40_000_000, 10_000_000, 4), (10**9, 10_000_000, 6), (10**9, 10, 16)],
)
def test_copies_of_weights(weight_bytes: int, n_bytes: int, count: int) -> None:
    assert of_weights(weight_bytes, n_bytes) == count
