"""ONNX files of users: what they declare, and blocks that together compute the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.onnx_nets import FLOAT, INT64, constant, convolutions, network, run_blocks, saved, weights
from support.paths import ROOT

from ofa_profiler.errors import UsageError
from ofa_profiler.models.base import Block, UserModel
from ofa_profiler.models.formats import open_model
from ofa_profiler.models.inputs import feeds_for
from ofa_profiler.models.onnx_blocks import unique_names
from ofa_profiler.models.onnx_costs import node_macs
from ofa_profiler.models.onnx_model import OnnxModel
from ofa_profiler.models.onnx_session import reason


def check_blocks(model: UserModel, shapes: dict[str, tuple[int, ...]] | None = None) -> tuple[Block, ...]:
    """The blocks for this machine, after those for both kinds of machine computed what the network computes."""
    feeds = feeds_for(model.inputs, shapes or {})
    expected = model.run(feeds)
    for this_machine in (False, True):
        blocks = model.blocks(feeds, this_machine=this_machine)
        values = run_blocks(blocks, feeds)
        for name, array in expected.items():
            np.testing.assert_allclose(values[name], array, rtol=1e-4, atol=1e-5)
        assert len({block.name for block in blocks}) == len(blocks)
    return blocks


@pytest.mark.parametrize("opset", [7, 11, 13, 17, 21])
def test_blocks_compute_the_network(tmp_path: Path, opset: int) -> None:
    path = saved(convolutions(opset=opset), tmp_path)
    before = path.read_bytes()
    model = open_model(path)
    blocks = check_blocks(model)
    assert len(blocks) > 2
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert sum(block.macs for block in blocks) == 4 * 48 * 48 * 16 * 16 * 9


def test_equal_blocks_have_equal_signatures(tmp_path: Path) -> None:
    model = open_model(saved(convolutions(8), tmp_path))
    blocks = model.blocks(feeds_for(model.inputs, {}), this_machine=False)
    assert len({block.signature for block in blocks}) < len(blocks)
    by_signature = {block.signature: block for block in blocks}
    for block in blocks:
        same = by_signature[block.signature]
        assert [kernel.kind for kernel in same.kernels] == [kernel.kind for kernel in block.kernels]
        assert [tensor.shape for tensor in same.inputs] == [tensor.shape for tensor in block.inputs]


def gates(depth: int = 5) -> onnx.ModelProto:
    """Gates of squeeze-and-excite and parallel branches: onnxruntime changes back from its blocked layout in many."""
    nodes, constants, name = [], [weights("w", 16, 16, 3, 3), weights("s", 16, 16, 1, 1)], "x"
    for i in range(depth):
        nodes += [
            helper.make_node("Conv", [name, "w"], [f"c{i}"], f"conv{i}", pads=[1, 1, 1, 1]),
            helper.make_node("GlobalAveragePool", [f"c{i}"], [f"p{i}"], f"pool{i}"),
            helper.make_node("Conv", [f"p{i}", "s"], [f"g{i}"], f"gate{i}"),
            helper.make_node("Mul", [f"c{i}", f"g{i}"], [f"m{i}"], f"mul{i}"),
            helper.make_node("Conv", [f"m{i}", "s"], [f"b{i}"], f"branch{i}"),
            helper.make_node("Softmax", [f"b{i}"], [f"o{i}"], f"softmax{i}", axis=1),
        ]
        name = f"m{i}"
    nodes.append(helper.make_node("Concat", [f"o{i}" for i in range(depth)], ["y"], "concat", axis=1))
    return network(nodes, {"x": (FLOAT, [1, 16, 40, 40])}, ["y"], constants)


@pytest.mark.parametrize("model", [convolutions(6), gates()], ids=["convolutions", "gates"])
def test_the_cut_is_the_same_in_another_process(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = saved(model, tmp_path)
    check_blocks(open_model(path))
    program = (
        "import sys; from pathlib import Path; from ofa_profiler.models.formats import open_model;"
        "from ofa_profiler.models.inputs import feeds_for; m = open_model(Path(sys.argv[1]));"
        "import hashlib; b = m.blocks(feeds_for(m.inputs, {}), this_machine=True);"
        "print([(b.name, b.signature, b.kernels, hashlib.sha256(b.model.data).hexdigest()) for b in b])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True, cwd=ROOT
        ).stdout
        for _ in range(3)
    }
    assert len(found) == 1
    assert found.pop().count("(") > 2


def test_open_dimensions_have_the_sizes_of_the_inputs(tmp_path: Path) -> None:
    model = open_model(saved(convolutions(size="side"), tmp_path))
    assert model.inputs[0].shape == (1, 16, "side", "side")
    blocks = check_blocks(model, {"x": (1, 16, 40, 40)})
    assert blocks[0].inputs[0].shape == (1, 16, 40, 40)
    # The whole network keeps its open dimensions.
    whole = onnx.load_from_string(model.whole(feeds_for(model.inputs, {"x": (1, 16, 40, 40)})).data)
    assert whole.graph.input[0].type.tensor_type.shape.dim[2].dim_param == "side"


def test_initializers_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    net = convolutions(opset=8, ir_version=3)
    for tensor in net.graph.initializer:
        net.graph.input.append(helper.make_tensor_value_info(tensor.name, FLOAT, tensor.dims))
    model = open_model(saved(net, tmp_path))
    assert [each.name for each in model.inputs] == ["x"]
    check_blocks(model)


def test_weights_in_constant_nodes(tmp_path: Path) -> None:
    net = convolutions()
    made = [helper.make_node("Constant", [], [t.name], value=t) for t in net.graph.initializer]
    nodes = [*made, *net.graph.node]
    del net.graph.initializer[:]
    del net.graph.node[:]
    net.graph.node.extend(nodes)
    blocks = check_blocks(open_model(saved(net, tmp_path)))
    assert sum(block.weight_bytes for block in blocks) >= 4 * 16 * 16 * 9 * 4


def test_external_data_are_brought_in(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save_model(convolutions(), path, save_as_external_data=True, location="net.data", size_threshold=16)
    assert (tmp_path / "net.data").stat().st_size > 4 * 16 * 16 * 9 * 4
    model = OnnxModel(path)
    assert model.n_bytes > (tmp_path / "net.data").stat().st_size
    inside = OnnxModel(saved(convolutions(), tmp_path, "inside.onnx"))
    feeds = feeds_for(model.inputs, {})
    np.testing.assert_array_equal(model.run(feeds)["y"], inside.run(feeds)["y"])
    check_blocks(model)


def embedding(rows: int = 7, kind: str = "Gather") -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["table8"], ["cast"], to=FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["table"]),
        helper.make_node("Cast", ["ids"], ["wide"], to=INT64),
        helper.make_node("Unsqueeze", ["wide", "axis"], ["more"]),
        helper.make_node(kind, ["table", "more"], ["rows"]),
        helper.make_node("Cast", ["mask"], ["factor"], to=FLOAT),
        helper.make_node("ReduceSum", ["factor"], ["total"], keepdims=0),
        helper.make_node("Mul", ["rows", "total"], ["y"]),
    ]
    constants = [
        constant("table8", np.arange(rows * 4).reshape(rows, 4) % 120, "int8"),
        constant("scale", 0.5, "float32"),
        constant("axis", [0]),
    ]
    return network(nodes, {"ids": (TensorProto.INT32, (5,)), "mask": (INT64, (5,))}, ["y"], constants)


def test_indices_lie_within_the_table(tmp_path: Path) -> None:
    model = open_model(saved(embedding(), tmp_path))
    assert {each.name: each.range for each in model.inputs} == {"ids": (0, 7), "mask": None}
    check_blocks(model)


def branches() -> onnx.ModelProto:
    """An If whose bodies use tensors from outside, between convolutions; and an index looked up in a body."""

    def body(name: str, node: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(node.output[0], FLOAT, None)])

    net = convolutions(3)
    then = body("then", helper.make_node("Gather", ["big", "index"], ["then_y"]))
    otherwise = body("else", helper.make_node("Mul", ["y", "y"], ["else_y"]))
    net.graph.node.append(helper.make_node("Greater", ["peak", "half"], ["is_high"]))
    net.graph.node.insert(len(net.graph.node) - 1, helper.make_node("ReduceMax", ["y"], ["peak"], keepdims=0))
    choice = helper.make_node("If", ["is_high"], ["chosen"], "choice", then_branch=then, else_branch=otherwise)
    net.graph.node.append(choice)
    net.graph.node.append(helper.make_node("Relu", ["chosen"], ["z"], "last"))
    net.graph.initializer.extend([weights("big", 9, 4), constant("half", 2.0, "float32")])
    net.graph.input.append(helper.make_tensor_value_info("index", INT64, (3,)))
    net.graph.output[0].name = "z"
    return net


def test_bodies_use_tensors_from_outside(tmp_path: Path) -> None:
    model = open_model(saved(branches(), tmp_path))
    assert model.inputs[1].range == (0, 9)
    blocks = check_blocks(model)
    assert "If" in {kernel.kind for block in blocks for kernel in block.kernels}


def test_sequences_stay_within_a_block(tmp_path: Path) -> None:
    net = convolutions(3)
    net.graph.node.append(helper.make_node("SplitToSequence", ["y"], ["parts"], axis=1))
    net.graph.node.append(helper.make_node("ConcatFromSequence", ["parts"], ["z"], axis=2))
    net.graph.output[0].name = "z"
    blocks = check_blocks(open_model(saved(net, tmp_path)))
    kinds = [[kernel.kind for kernel in block.kernels] for block in blocks]
    assert any({"SplitToSequence", "ConcatFromSequence"} <= set(found) for found in kinds)


def test_a_tensor_without_elements_stays_within_a_block(tmp_path: Path) -> None:
    net = convolutions(3)
    net.graph.node.append(helper.make_node("Slice", ["y", "zero", "zero", "one"], ["none"]))
    net.graph.node.append(helper.make_node("Concat", ["none", "y"], ["z"], axis=1))
    net.graph.initializer.extend([constant("zero", [0]), constant("one", [1])])
    net.graph.output[0].name = "z"
    check_blocks(open_model(saved(net, tmp_path)))


def test_a_network_that_cannot_be_cut_is_one_block(tmp_path: Path) -> None:
    net = convolutions(3)
    net.graph.node.append(helper.make_node("SplitToSequence", ["y"], ["parts"], axis=1))
    del net.graph.output[:]
    kind = helper.make_tensor_type_proto(FLOAT, None)
    net.graph.output.append(helper.make_value_info("parts", helper.make_sequence_type_proto(kind)))
    model = open_model(saved(net, tmp_path))
    feeds = feeds_for(model.inputs, {})
    for this_machine in (False, True):
        blocks = model.blocks(feeds, this_machine=this_machine)
        assert len(blocks) == 1
        assert blocks[0].kernels[-1].kind == "SplitToSequence"
        assert blocks[0].model.data == model.whole(feeds).data


def test_states_and_several_outputs(tmp_path: Path) -> None:
    hidden = 32
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r", "", "", "h", "c"], ["", "hn", "cn"], "lstm", hidden_size=hidden),
        helper.make_node("Relu", ["hn"], ["y"], "relu"),
    ]
    inputs = {"x": (FLOAT, (4, 1, 8)), "h": (FLOAT, (1, 1, hidden)), "c": (FLOAT, (1, 1, hidden))}
    net = network(nodes, inputs, ["y", "cn"], [weights("w", 1, 4 * hidden, 8), weights("r", 1, 4 * hidden, hidden)])
    blocks = check_blocks(open_model(saved(net, tmp_path)))
    assert sum(block.macs for block in blocks) == 4 * (4 * hidden * 8 + 4 * hidden * hidden)


def test_a_block_has_the_nodes_of_its_kernels_and_inputs(tmp_path: Path) -> None:
    """Without inputs, onnxruntime would compute it once, while it loads."""
    model = open_model(saved(convolutions(5), tmp_path))
    blocks = model.blocks(feeds_for(model.inputs, {}), this_machine=True)
    for block in blocks:
        assert block.inputs
        assert len(onnx.load_from_string(block.model.data).graph.node) == len(block.kernels)


@pytest.mark.parametrize("opset", [7, 17])
def test_a_block_asks_for_no_operators_that_it_does_not_have(tmp_path: Path, opset: int) -> None:
    """This runtime knows sets of operators that an older one on a board refuses, also if nothing uses them."""
    path = saved(convolutions(opset=opset), tmp_path)
    model = open_model(path)
    for block in model.blocks(feeds_for(model.inputs, {}), this_machine=False):
        found = onnx.load_from_string(block.model.data)
        asked = {each.domain: each.version for each in found.opset_import}
        assert asked.keys() == {"", *(node.domain for node in found.graph.node)}
        assert asked[""] == opset
        assert found.ir_version == onnx.load(path).ir_version


def test_the_precision_follows_from_the_operators(tmp_path: Path) -> None:
    assert open_model(saved(convolutions(), tmp_path)).precision == "fp32"
    dense = helper.make_node("MatMulInteger", ["x", "w"], ["z"])
    cast = helper.make_node("Cast", ["z"], ["y"], to=FLOAT)
    eight = network([dense, cast], {"x": (TensorProto.UINT8, (1, 8))}, ["y"], [constant("w", np.ones((8, 8)), "int8")])
    assert open_model(saved(eight, tmp_path, "eight.onnx")).precision == "int8"
    half = convolutions()
    del half.graph.node[:]
    half.graph.node.append(helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16))
    half.graph.node.append(helper.make_node("Conv", ["h", "k"], ["c"]))
    half.graph.node.append(helper.make_node("Cast", ["c"], ["y"], to=FLOAT))
    del half.graph.initializer[:]
    half.graph.initializer.append(constant("k", np.ones((4, 16, 1, 1)), "float16"))
    assert open_model(saved(half, tmp_path, "half.onnx")).precision == "fp16"


def test_wrong_values_are_said_in_the_words_of_the_runtime(tmp_path: Path) -> None:
    model = open_model(saved(embedding(), tmp_path))
    feeds = feeds_for(model.inputs, {})
    with pytest.raises(UsageError, match=r"cannot run net\.onnx.*--inputs") as caught:
        model.run({**feeds, "ids": np.full(5, 100, np.int32)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("with_heads", [True, False])
def test_attention_of_onnx_has_macs(with_heads: bool, tmp_path: Path) -> None:
    queries, keys = ((1, 4, 6, 8), (1, 2, 10, 8)) if with_heads else ((1, 6, 32), (1, 10, 16))
    heads = {} if with_heads else {"q_num_heads": 4, "kv_num_heads": 2}
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], "attention", **heads)
    inputs = {"q": (FLOAT, queries), "k": (FLOAT, keys), "v": (FLOAT, keys)}
    path = saved(network([node], inputs, ["y"], opset=23, ir_version=10), tmp_path)
    (block,) = check_blocks(open_model(path))
    assert block.macs in (2 * 4 * 6 * 10 * 8, 0)  # 0 if onnxruntime does not run it as one kernel
    shapes = {name: shape for name, (_, shape) in inputs.items()}
    assert node_macs(node, shapes) == 2 * 4 * 6 * 10 * 8


def test_reasons_name_no_places_in_the_code_of_onnxruntime(tmp_path: Path) -> None:
    model = network(
        [helper.make_node("Reshape", ["x", "s"], ["y"], "r")], {"x": (FLOAT, [2, 3]), "s": (INT64, [2])}, ["y"]
    )
    opened = open_model(saved(model, tmp_path))
    with pytest.raises(UsageError, match="cannot run") as error:
        opened.run({"x": np.ones((2, 3), np.float32), "s": np.array([7, 7])})
    assert "onnxruntime_src" not in str(error.value)
    assert "::" not in str(error.value)
    assert "cannot be reshaped" in str(error.value)


def test_names_of_blocks_are_of_a_readable_length() -> None:
    long = "n" * 100_000
    names = unique_names(iter([f"{long}/a", f"{long}/a", f"{long}/b"]))
    assert len(set(names)) == 3
    assert max(map(len, names)) < 210
    assert names[2].endswith("n/b")


def test_the_reason_is_that_of_the_innermost_node() -> None:
    outer = "Non-zero status code returned while running If node. Name:'a' Status Message: "
    inner = "Non-zero status code returned while running LSTM node. Name:'b' Status Message: "
    said = reason(RuntimeError(f"[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : {outer}{outer}{inner}wrong size"))
    assert said == f"2 : INVALID_ARGUMENT : {inner}wrong size"
