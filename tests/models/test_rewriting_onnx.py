"""Patterns of ONNX networks: what is found, that outputs stay, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ofa_profiler.models.onnx_session import session
from ofa_profiler.models.rewriting.checking import LARGEST_DIFFERENCE, difference
from ofa_profiler.models.rewriting.onnx_affine import AffineAfterConv, AffineBeforeConv
from ofa_profiler.models.rewriting.onnx_channel_scale import ChannelScale
from ofa_profiler.models.rewriting.onnx_document import OnnxDocument
from ofa_profiler.models.rewriting.onnx_gates import WideGate
from ofa_profiler.models.rewriting.onnx_hard_sigmoid import HardSigmoid
from ofa_profiler.models.rewriting.registry import patterns_for, rewritten

IMAGE = (2, 8, 7, 9)


class Net:
    """A small graph with one input `x` and the output `y`."""

    def __init__(self, shape=IMAGE, opset=17):
        self.shape, self.opset = shape, opset
        self.nodes, self.weights = [], []
        self.rng = np.random.default_rng(0)

    def weight(self, name, *shape, low=-1.0, high=1.0):
        self.weights.append(numpy_helper.from_array(self.rng.uniform(low, high, shape).astype(np.float32), name))
        return name

    def number(self, value):
        name = f"c{len(self.nodes)}"
        self.nodes.append(
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value, np.float32)))
        )
        return name

    def add(self, kind, *inputs, to, **attributes):
        self.nodes.append(helper.make_node(kind, list(inputs), [to], name=f"node_{to}", **attributes))
        return to

    def conv(self, x, to, channels=8, **attributes):
        weight = self.weight(f"{to}_w", channels, 8 // attributes.get("group", 1), 3, 3)
        return self.add("Conv", x, weight, to=to, **attributes)

    def data(self, output_rank=4, more_outputs=()):
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * output_rank)
                for name in ("y", *more_outputs)
            ],
            self.weights,
            doc_string="a graph",
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], doc_string="a model")
        model.ir_version = 8
        helper.set_model_props(model, {"author": "someone", "labels": "a,b"})
        return model.SerializeToString()


def run(data, shape=IMAGE):
    """The outputs for three random inputs."""
    opened = session(data)
    names = [output.name for output in opened.get_outputs()]
    found = []
    for seed in range(3):
        x = np.random.default_rng(seed).uniform(-4, 4, shape).astype(np.float32)
        found.append(dict(zip(names, opened.run(None, {"x": x}), strict=True)))
    return found


def applied(data, pattern, shape=IMAGE):
    """The places of a pattern, and the kinds of nodes after it. The outputs must be the same."""
    document = OnnxDocument(data)
    places = pattern.apply(document)
    other = document.data()
    onnx.checker.check_model(onnx.load_from_string(other), full_check=True)
    assert difference(zip(run(data, shape), run(other, shape), strict=True)) <= LARGEST_DIFFERENCE
    return places, [node.op_type for node in onnx.load_from_string(other).graph.node]


def hard_swish(net, x, to, order, limit=6.0, shift=3.0):
    """clip(x + 3, 0, 6) / 6 * x, in one of three orders; without the product for `gate`."""
    shifted = net.add("Add", x, net.number(shift), to=f"{to}_add")
    if net.opset < 11:
        clipped = net.add("Clip", shifted, to=f"{to}_clip", min=0.0, max=limit)
    else:
        clipped = net.add("Clip", shifted, net.number(0), net.number(limit), to=f"{to}_clip")
    if order == "mul div":
        product = net.add("Mul", x, clipped, to=f"{to}_mul")
        return net.add("Div", product, net.number(limit), to=to)
    gate_name = to if order == "gate" else f"{to}_gate"
    if order == "scaled mul":
        gate = net.add("Mul", net.number(1 / limit), clipped, to=gate_name)
    else:
        gate = net.add("Div", clipped, net.number(limit), to=gate_name)
    return gate if order == "gate" else net.add("Mul", gate, x, to=to)


@pytest.mark.parametrize("opset", [9, 12, 17])
@pytest.mark.parametrize("order", ["mul div", "scaled mul", "div mul", "gate"])
def test_hard_swish_of_single_operators(opset, order):
    net = Net(opset=opset)
    hard_swish(net, net.conv("x", "conv"), "y", order)
    places, kinds = applied(net.data(), HardSigmoid())
    assert places == ("y",)
    form = {True: ["HardSigmoid"], False: ["HardSigmoid", "Mul"]}[order == "gate"]
    assert kinds == ["Conv", *(["HardSwish"] if opset >= 14 and order != "gate" else form)]


# With x in [-4, 4] and a shift near -4, all outputs would be differences of almost equal numbers.
@given(st.floats(1, 8, width=32), st.floats(-2, 4, width=32), st.sampled_from(["mul div", "div mul", "gate"]))
@settings(max_examples=15, deadline=None)
def test_hard_sigmoids_with_other_limits(limit, shift, order):
    net = Net()
    hard_swish(net, "x", "y", order, limit, shift)
    places, kinds = applied(net.data(), HardSigmoid())
    assert places == ("y",)
    assert "Clip" not in kinds


def test_a_hard_swish_whose_parts_are_read_elsewhere_stays():
    net = Net()
    hard_swish(net, "x", "y", "mul div")
    data = net.data(more_outputs=("y_clip",))
    document = OnnxDocument(data)
    assert HardSigmoid().apply(document) == ()
    assert document.data() == data


def test_a_clip_to_other_limits_stays():
    net = Net()
    shifted = net.add("Add", "x", net.number(3), to="a")
    clipped = net.add("Clip", shifted, net.number(-1), net.number(6), to="b")
    net.add("Div", clipped, net.number(6), to="y")
    assert HardSigmoid().apply(OnnxDocument(net.data())) == ()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["Add", "Sub", "Mul", "Div", "reversed Sub", "BatchNormalization", "Cast", "Transpose"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@given(STEPS, st.sampled_from([1, 8]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_scales_and_shifts_become_part_of_the_convolution_before(steps, groups, has_bias):
    net = Net()
    bias = [net.weight("bias", 8)] if has_bias else []
    tensor = net.add("Conv", "x", net.weight("w", 8, 8 // groups, 3, 3), *bias, to="t", group=groups)
    axis = 1
    for number, (kind, is_scalar) in enumerate([*steps, ("Mul", True)]):
        to = "y" if number == len(steps) else f"t{number}"
        if kind == "Cast":
            tensor = net.add(kind, tensor, to=to)
            net.nodes[-1].attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
        elif kind == "Transpose":
            perm = [0, 2, 3, 1]
            tensor, axis = net.add(kind, tensor, to=to, perm=perm), perm.index(axis)
        elif kind == "BatchNormalization":
            if axis != 1:
                continue
            parts = [net.weight(f"p{number}{i}", 8, low=0.5) for i in range(4)]
            tensor = net.add(kind, tensor, *parts, to=to)
        else:
            shape = [1] if is_scalar else [8 if i == axis else 1 for i in range(1, 4)]
            values = net.weight(f"p{number}", *shape, low=0.5, high=2.0)
            inputs = (values, tensor) if kind.startswith("reversed") else (tensor, values)
            tensor = net.add(kind.removeprefix("reversed "), *inputs, to=to)
    places, kinds = applied(net.data(), AffineAfterConv())
    assert places == ("y",)
    assert set(kinds) <= {"Constant", "Conv", "Cast", "Transpose"}
    assert kinds.count("Conv") == 1


def test_what_onnxruntime_merges_itself_stays():
    net = Net()
    parts = [net.weight(f"p{i}", 8, low=0.5) for i in range(4)]
    net.add("BatchNormalization", net.conv("x", "conv"), *parts, to="y")
    assert AffineAfterConv().apply(OnnxDocument(net.data())) == ()


@given(st.sampled_from([1, 2, 8]), st.booleans(), st.booleans())
@settings(max_examples=12, deadline=None)
def test_scales_and_shifts_before_a_convolution(groups, is_scalar, is_padded):
    net = Net()
    shape = [1] if is_scalar else [8, 1, 1]
    scaled = net.add("Mul", net.weight("scale", *shape), net.add("Relu", "x", to="r"), to="s")
    shifted = net.add("Add", scaled, net.weight("shift", *shape), to="t")
    net.conv(shifted, "y", channels=16, group=groups, pads=[int(is_padded)] * 4)
    places, kinds = applied(net.data(), AffineBeforeConv())
    assert places == (() if is_padded else ("y",))
    assert ("Mul" in kinds) == is_padded


def test_a_scale_that_others_read_too_stays():
    net = Net()
    scaled = net.add("Mul", "x", net.number(2), to="s")
    net.add("Concat", net.conv(scaled, "t", pads=[0] * 4), net.conv(scaled, "u", pads=[0] * 4), to="y", axis=1)
    assert AffineBeforeConv().apply(OnnxDocument(net.data())) == ()


@given(st.lists(st.sampled_from(["Mul", "Add", "Sub", "Div"]), max_size=4), st.booleans())
@settings(max_examples=12, deadline=None)
def test_scales_of_channels_become_a_depthwise_convolution(kinds, is_scalar):
    net = Net()
    tensor = net.add("Relu", net.conv("x", "conv"), to="r")
    for number, kind in enumerate(["Mul", *kinds]):
        values = net.weight(f"p{number}", *([1] if is_scalar else [8, 1, 1]), low=0.5, high=2.0)
        tensor = net.add(kind, tensor, values, to="y" if number == len(kinds) else f"t{number}")
    places, found = applied(net.data(), ChannelScale())
    assert places == ("y",)
    assert [kind for kind in found if kind != "Constant"] == ["Conv", "Relu", "Conv"]


def test_scales_of_tensors_that_are_no_maps_stay():
    """Scores of attention have four axes, too."""
    net = Net()
    product = net.add("MatMul", "x", net.weight("w", 9, 9), to="m")
    net.add("Softmax", net.add("Mul", product, net.number(0.125), to="s"), to="y", axis=-1)
    assert ChannelScale().apply(OnnxDocument(net.data())) == ()


def gated(net):
    pooled = net.add("GlobalAveragePool", "x", to="p")
    gate = net.add("Sigmoid", net.add("Conv", pooled, net.weight("gate_w", 8, 8, 1, 1), to="g"), to="s")
    net.add("Mul", gate, "x", to="y")
    return net


@pytest.mark.parametrize("opset", [11, 12, 13, 17])
@pytest.mark.parametrize("batch", [2, "N"])
def test_gates(opset, batch):
    places, kinds = applied(gated(Net((batch, 8, 7, 9), opset)).data(), WideGate())
    assert places == ("y",)
    assert "Resize" in kinds


def test_gates_of_maps_of_open_size_stay():
    assert WideGate().apply(OnnxDocument(gated(Net((1, 8, "H", "W"))).data())) == ()


def test_gates_of_old_files_stay():
    assert WideGate().apply(OnnxDocument(gated(Net(opset=10)).data())) == ()


def test_nothing_else_changes():
    net = Net()
    mixed = net.add("Relu", net.conv("x", "first", pads=[1] * 4), to="r")
    swish = hard_swish(net, mixed, "h", "mul div")
    net.add("Tanh", net.add("Mul", net.conv(swish, "last"), net.number(3), to="m"), to="y")
    plain = onnx.load_from_string(net.data())
    data, places = rewritten("onnxruntime", net.data(), patterns_for("onnxruntime"))
    other = onnx.load_from_string(data)
    assert places == 2
    kept = {node.name: node.SerializeToString() for node in other.graph.node}
    for name in ("node_first", "node_r", "node_y"):
        assert kept[name] == next(n for n in plain.graph.node if n.name == name).SerializeToString()
    assert "c5" not in kept  # the constants of the pattern are gone
    weights = {each.name: each.SerializeToString() for each in plain.graph.initializer}
    assert {each.name: each.SerializeToString() for each in other.graph.initializer} == {"first_w": weights["first_w"]}
    for model in (plain, other):
        del model.graph.node[:], model.graph.initializer[:]
    assert plain == other


def test_what_the_body_of_a_branch_reads_stays():
    net = Net()
    scaled = net.add("Mul", net.conv("x", "conv"), net.number(2), to="s")
    shifted = net.add("Add", scaled, net.number(1), to="a")
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Neg", [read], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [None] * 4)],
        )
        for name, read in (("then", "s"), ("else", "a"))
    }
    yes = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
    net.nodes.append(yes)
    net.add("If", "yes", to="y", **branches)
    assert shifted == "a"
    places, kinds = applied(net.data(), AffineAfterConv())
    assert places == ("s",)
    assert "Add" in kinds


def test_no_onnx_file():
    with pytest.raises(ValueError, match="no ONNX model"):
        OnnxDocument(b"\xff" * 40)
