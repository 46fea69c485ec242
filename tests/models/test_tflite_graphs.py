"""Blocks of TFLite graphs by hand: integers, open shapes, several inputs, states, control flow, fp16 weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tflite_nets import Net, options, packed, widths

from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.models import tflite_cutter, tflite_model
from ofa_profiler.models.inputs import feeds_for
from ofa_profiler.models.tflite_model import TfliteModel
from ofa_profiler.models.tflite_runtime import outputs_of, prepared

#: Each takes long enough to be a block of its own.
WIDE = 1024


def opened(folder: Path, data: bytes) -> TfliteModel:
    path = folder / "net.tflite"
    path.write_bytes(data)
    return TfliteModel(path)


def assert_composed(model: TfliteModel, feeds, least: int = 2) -> tuple:
    """At least so many blocks, which one after the other give what the network gives."""
    blocks = model.blocks(feeds, this_machine=True)
    found = dict(feeds)
    for block in blocks:
        pairs = zip(block.model.feeds, block.inputs, strict=True)
        interpreter = prepared(block.model.data, {feed.tensor.name: found[outer.name] for feed, outer in pairs})
        interpreter.invoke()
        found.update(zip([outer.name for outer in block.outputs], outputs_of(interpreter).values(), strict=True))
    assert len(blocks) >= least
    for name, values in model.run(feeds).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5 * np.abs(values).max())
    return blocks


def chain(net: Net, x: str, count: int, rows: int = 1) -> str:
    return widths(net, x, {f"layer{i}": (WIDE, WIDE) for i in range(count)}, rows)


def test_equal_layers_are_measured_once(tmp_path):
    net = Net()
    y = chain(net, net.tensor("x", (1, WIDE)), 4)
    model = opened(tmp_path, packed(["x"], [y], net))
    blocks = assert_composed(model, feeds_for(model.inputs, {}), 4)
    assert [block.name for block in blocks] == ["layer0", "layer1", "layer2", "layer3"]
    assert len({block.signature for block in blocks}) == 1
    assert {block.macs for block in blocks} == {WIDE * WIDE}
    assert {block.weight_bytes for block in blocks} == {4 * (WIDE * WIDE + WIDE)}
    assert {block.kind for block in blocks} == {"FULLY_CONNECTED"}


def test_indices_lie_in_the_table_and_keep_their_values(tmp_path):
    net = Net()
    ids = net.tensor("ids", (1, 7), "int32")
    net.add("RESHAPE", [ids, net.constant("flat", [7], "int32")], "row", (7,), dtype="int32")
    net.add("GATHER", [net.weights("table", 30, WIDE), "row"], "words", (7, WIDE), options=options("GatherOptions"))
    y = chain(net, "words", 3, rows=7)
    model = opened(tmp_path, packed(["ids"], [y], net))
    (ids,) = model.inputs
    assert (ids.dtype, ids.shape, ids.range) == ("int32", (1, 7), (0, 30))
    feeds = feeds_for(model.inputs, {})
    first = assert_composed(model, feeds)[0]
    (feed,) = first.model.feeds
    np.testing.assert_array_equal(feed.values, feeds["ids"])


def test_an_open_dimension_gets_the_size_of_the_user(tmp_path):
    """The shape that RESHAPE gets is computed from that of the input, and a constant of the block."""
    net = Net()
    x = net.tensor("x", (-1, 2, WIDE // 2))
    net.add("SHAPE", [x], "shape", (3,), dtype="int32", options=options("ShapeOptions", outType=2))
    ends = [net.constant(name, [value], "int32") for name, value in (("begin", 0), ("end", 1), ("step", 1))]
    cut = options("StridedSliceOptions", shrinkAxisMask=1)
    net.add("STRIDED_SLICE", ["shape", *ends], "rows", (), dtype="int32", options=cut)
    wide = net.constant("wide", WIDE, "int32")
    net.add("PACK", ["rows", wide], "sizes", (2,), dtype="int32", options=options("PackOptions", valuesCount=2, axis=0))
    y = chain(net, "x", 0)
    net.add("EXP", [y], "exp", (-1, 2, WIDE // 2), options=options("ExpOptions"))
    net.add("RESHAPE", ["exp", "sizes"], "flat", (-1, WIDE))
    y = chain(net, "flat", 3, rows=-1)
    model = opened(tmp_path, packed(["x"], [y], net))
    assert model.inputs[0].shape == ("?", 2, WIDE // 2)
    with pytest.raises(UsageError, match="open shape"):
        feeds_for(model.inputs, {})
    blocks = assert_composed(model, feeds_for(model.inputs, {"x": (3, 2, WIDE // 2)}))
    assert blocks[-1].outputs[0].shape == (3, WIDE)
    assert blocks[-1].macs == 3 * WIDE * WIDE
    wider = model.blocks(feeds_for(model.inputs, {"x": (5, 2, WIDE // 2)}), this_machine=True)
    assert wider[-1].signature != blocks[-1].signature


def test_several_inputs_and_outputs(tmp_path):
    net = Net()
    a, b = net.tensor("a", (1, WIDE)), net.tensor("b", (1, WIDE))
    net.add("ADD", [a, b], "sum", (1, WIDE), options=options("AddOptions"))
    y = chain(net, "sum", 3)
    net.add("ADD", [y, "layer0"], "far", (1, WIDE), options=options("AddOptions"))
    net.add("MUL", [b, "far"], "end", (1, WIDE), options=options("MulOptions"))
    model = opened(tmp_path, packed(["a", "b"], ["end", "layer1"], net))
    blocks = assert_composed(model, feeds_for(model.inputs, {}), 3)
    assert [tensor.name for tensor in blocks[-1].inputs][-2:] == ["layer0", "b"]
    assert set(model.run(feeds_for(model.inputs, {}))) == {"end", "layer1"}


def test_a_recurrent_layer_keeps_its_state(tmp_path):
    net, size = Net(), 256
    x = net.tensor("x", (1, 10, size))
    gates = [net.weights(f"{kind}{i}", size, size) for kind in "wr" for i in range(4)]
    biases = [net.weights(f"b{i}", size) for i in range(4)]
    states = [net.tensor(name, (1, size), variable=True) for name in ("state", "cell")]
    chosen = options("UnidirectionalSequenceLSTMOptions", fusedActivationFunction=4, cellClip=0.0, projClip=0.0)
    inputs = [x, *gates, "", "", "", *biases, "", "", *states, "", "", "", ""]
    net.add("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, "lstm", (1, 10, size), options=chosen)
    net.add("RESHAPE", ["lstm", net.constant("flat", [1, 10 * size], "int32")], "row", (1, 10 * size))
    y = widths(net, "row", {"head": (10 * size, WIDE), "end": (WIDE, WIDE)}, 1)
    model = opened(tmp_path, packed(["x"], [y], net))
    blocks = assert_composed(model, feeds_for(model.inputs, {}))
    assert blocks[0].kernels[0].macs == 10 * 8 * size * size
    assert [tensor.name for tensor in blocks[0].inputs] == ["x"]


def test_control_flow_is_measured_whole(tmp_path):
    def branch(kind: str) -> tuple[list[str], list[str], Net]:
        net = Net()
        net.add(kind, [net.tensor("in", (1, WIDE))], "out", (1, WIDE))
        return ["in"], ["out"], net

    net = Net()
    condition, x = net.tensor("condition", (), "bool"), net.tensor("x", (1, WIDE))
    y = chain(net, x, 3)
    net.add(
        "IF", [condition, y], "y", (1, WIDE), options=options("IfOptions", thenSubgraphIndex=1, elseSubgraphIndex=2)
    )
    data = packed(["condition", "x"], ["y"], net, branch("TANH"), branch("LOGISTIC"))
    model = opened(tmp_path, data)
    feeds = feeds_for(model.inputs, {})
    (block,) = model.blocks(feeds, this_machine=True)
    assert block.model.data == data
    assert block.macs == 3 * WIDE * WIDE
    assert len(block.kernels) == 4
    assert [feed.values.shape for feed in block.model.feeds] == [(), (1, WIDE)]
    yes, no = (model.run({**feeds, "condition": np.array(value)})["y"] for value in (True, False))
    np.testing.assert_array_equal(no > 0.5, yes > 0)  # a sigmoid, and a tangent
    assert yes.min() < -0.5 < 0 <= no.min()


def test_unpacked_weights_stay_with_their_users(tmp_path):
    net = Net()
    x = net.tensor("x", (1, WIDE))
    for name in ("first", "second", "third"):
        half = net.constant(f"{name}/half", np.random.default_rng(1).uniform(-0.1, 0.1, (WIDE, WIDE)), "float16")
        net.add("DEQUANTIZE", [half], f"{name}/w", (WIDE, WIDE), options=options("DequantizeOptions"))
    for name in ("first", "second", "third"):
        x = net.add("FULLY_CONNECTED", [x, f"{name}/w", ""], name, (1, WIDE), options=options("FullyConnectedOptions"))
    model = opened(tmp_path, packed(["x"], [x], net))
    assert model.precision == "fp32"
    blocks = assert_composed(model, feeds_for(model.inputs, {}), 3)
    assert [[kernel.kind for kernel in block.kernels] for block in blocks] == [["FULLY_CONNECTED"]] * 3
    assert {block.weight_bytes for block in blocks} == {2 * WIDE * WIDE}


def test_texts_and_unknown_operators_get_one_line(tmp_path):
    net = Net()
    net.add(
        "RESHAPE", [net.tensor("words", (2,), "string"), net.constant("s", [2], "int32")], "y", (2,), dtype="string"
    )
    with pytest.raises(InputFileError, match="'words' of texts"):
        opened(tmp_path, packed(["words"], ["y"], net))
    net = Net()
    net.add("MyOwnOp", [net.tensor("x", (2,))], "y", (2,))
    model = opened(tmp_path, packed(["x"], ["y"], net))
    for action in (model.run, lambda feeds: model.blocks(feeds, this_machine=True)):
        with pytest.raises(UsageError, match="MyOwnOp") as caught:
            action(feeds_for(model.inputs, {}))
        assert "\n" not in str(caught.value)


def test_states_that_operators_find_by_name_are_measured_whole(tmp_path):
    net = Net()
    net.tensor("handle", (), "resource")
    handle = options("VarHandleOptions", container="", sharedName="count")
    net.operators.append(("VAR_HANDLE", [], ["handle"], handle))
    net.operators.append(
        ("ASSIGN_VARIABLE", ["handle", net.tensor("x", (1, WIDE))], [], options("AssignVariableOptions"))
    )
    net.add("READ_VARIABLE", ["handle"], "read", (1, WIDE), options=options("ReadVariableOptions"))
    y = chain(net, "read", 3)
    data = packed(["x"], [y], net)
    model = opened(tmp_path, data)
    (block,) = model.blocks(feeds_for(model.inputs, {}), this_machine=True)
    assert (block.model.data, block.name, len(block.kernels)) == (data, "layer2", 6)


def test_what_xnnpack_computes_as_one_stays_together(tmp_path):
    """The padding of a convolution, and the activation after an addition; not so if another operator reads between."""
    net, shape = Net(), (1, 256, 256, 8)
    x = net.tensor("x", shape)
    filters = [net.weights("w", 8, 3, 3, 8), net.weights("b", 8)]
    convolution = options("Conv2DOptions", padding=1, strideW=1, strideH=1)
    for i in range(3):
        pad = net.constant(f"pad{i}", [[0, 0], [1, 1], [1, 1], [0, 0]], "int32")
        padded = net.add("PAD", [x, pad], f"padded{i}", (1, 258, 258, 8), options=options("PadOptions"))
        y = net.add("CONV_2D", [padded, *filters], f"conv{i}", shape, options=convolution)
        y = net.add("ADD", [y, x], f"sum{i}", shape, options=options("AddOptions"))
        x = net.add("RELU", [y], f"relu{i}", shape)
    net.add("TANH", ["sum2"], "other", shape)
    model = opened(tmp_path, packed(["x"], [x, "other"], net))
    blocks = assert_composed(model, feeds_for(model.inputs, {}), 6)
    kinds = [[kernel.kind for kernel in block.kernels] for block in blocks]
    assert kinds[:4] == [["PAD", "CONV_2D"], ["ADD", "RELU"]] * 2
    assert kinds[4:] == [["PAD", "CONV_2D"], ["ADD"], ["RELU"], ["TANH"]]
    assert len({block.signature for block in blocks[:4]}) == 2


def test_a_block_that_does_not_run_alone_joins_its_neighbour(tmp_path):
    """XNNPACK does not compute integers, and the agent refuses a model of which it runs nothing."""
    net = Net()
    x = net.tensor("x", (1, 1024, 512), "int32")
    net.add("NEG", [x], "less", (1, 1024, 512), dtype="int32")
    net.add("CAST", ["less"], "real", (1, 1024, 512), options=options("CastOptions", inDataType=2, outDataType=0))
    for i in range(3):
        net.add("TANH", ["real" if i == 0 else f"tanh{i - 1}"], f"tanh{i}", (1, 1024, 512))
    model = opened(tmp_path, packed(["x"], ["tanh2"], net))
    blocks = assert_composed(model, feeds_for(model.inputs, {}), 3)
    assert [kernel.kind for kernel in blocks[0].kernels] == ["NEG", "CAST", "TANH"]


def test_names_and_weights_are_not_part_of_a_signature(tmp_path):
    def signatures(name: str, *, activation: int = 0, folder: str) -> list[str]:
        net = Net()
        x = net.tensor("x", (1, WIDE))
        for i in range(2):
            weights = [net.weights(f"{name}{i}/w", WIDE, WIDE), net.weights(f"{name}{i}/b", WIDE)]
            chosen = options("FullyConnectedOptions", fusedActivationFunction=activation)
            x = net.add("FULLY_CONNECTED", [x, *weights], f"{name}{i}", (1, WIDE), options=chosen)
        (tmp_path / folder).mkdir()
        model = opened(tmp_path / folder, packed(["x"], [x], net))
        return [block.signature for block in model.blocks(feeds_for(model.inputs, {}), this_machine=False)]

    first = signatures("a", folder="a")
    assert signatures("other", folder="b") == first
    assert not set(signatures("a", activation=1, folder="c")) & set(first)


def test_the_first_of_several_graphs_is_timed(tmp_path):
    net, other = Net(), Net()
    y = chain(net, net.tensor("x", (1, WIDE)), 2)
    other.add("TANH", [other.tensor("in", (1, 3))], "out", (1, 3))
    model = opened(tmp_path, packed(["x"], [y], net, (["in"], ["out"], other)))
    assert [each.name for each in model.inputs] == ["x"]
    assert len(assert_composed(model, feeds_for(model.inputs, {}))) == 2


#: A number of inputs, the operator and its options.
_KINDS = [(2, "ADD", "AddOptions"), (2, "MUL", "MulOptions"), (1, "TANH", None), (1, "RELU", None), (1, "EXP", None)]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_blocks_of_any_graph_give_what_the_graph_gives(data, tmp_path_factory):
    """Random operators on random tensors before them; every operator is a block where nothing joins it."""
    net, names = Net(), ["a", "b"]
    for name in names:
        net.tensor(name, (1, 5))
    for i in range(data.draw(st.integers(1, 12))):
        count, kind, chosen = data.draw(st.sampled_from(_KINDS))
        inputs = [data.draw(st.sampled_from(names)) for _ in range(count)]
        names.append(net.add(kind, inputs, f"t{i}", (1, 5), options=options(chosen) if chosen else None))
    ends = data.draw(st.lists(st.sampled_from(names[2:]), min_size=1, max_size=3, unique=True))
    feeds = {name: np.random.default_rng(i).uniform(-1, 1, (1, 5)).astype(np.float32) for i, name in enumerate("ab")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tflite_cutter, "CALL_US", 0.0)
        patch.setattr(tflite_model, "check_loads", lambda path: None)  # a process for each example takes long
        assert_composed(opened(tmp_path_factory.getbasetemp(), packed(["a", "b"], ends, net)), feeds, 1)
