"""Patterns of TFLite networks: what is found, that outputs stay, and that nothing else changes."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as api
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tflite_nets import Net, options, packed

from ofa_profiler.export import export_ops
from ofa_profiler.models.rewriting.checking import LARGEST_DIFFERENCE, difference
from ofa_profiler.models.rewriting.registry import patterns_for, rewritten
from ofa_profiler.models.rewriting.tflite_depthwise import LargeDepthwise, parts_of
from ofa_profiler.models.rewriting.tflite_document import TfliteDocument
from ofa_profiler.models.rewriting.tflite_pooling import PoolPadding
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces import get_space

RELU, RELU6 = api.ActivationFunctionType.RELU, api.ActivationFunctionType.RELU6
SAME, VALID = api.Padding.SAME, api.Padding.VALID
REFLECT, SYMMETRIC = api.MirrorPadMode.REFLECT, api.MirrorPadMode.SYMMETRIC


def run(data, shape=None):
    """The outputs for three random inputs."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    (source,) = interpreter.get_input_details()
    if shape is not None:
        interpreter.resize_tensor_input(source["index"], shape)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    found = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        interpreter.set_tensor(source["index"], rng.uniform(-1, 1, source["shape"]).astype(source["dtype"]))
        interpreter.invoke()
        found.append({each["name"]: interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()})
    return found


def kinds(data):
    document = TfliteDocument(data)
    return [document.kind(operator) for operator in document.graph.operators]


def applied(data, pattern, shape=None):
    """The places of a pattern, and the file after it. The outputs must be the same."""
    document = TfliteDocument(data)
    places = pattern.apply(document)
    other = document.data()
    assert difference(zip(run(data, shape), run(other, shape), strict=True)) <= LARGEST_DIFFERENCE
    return places, other


@given(st.integers(1, 20), st.integers(1, 20))
def test_the_parts_of_a_kernel_have_each_tap_once(height, width):
    taps = [(row, column) for rows, columns in parts_of(height, width) for row in rows for column in columns]
    assert sorted(taps) == [(row, column) for row in range(height) for column in range(width)]
    assert all(len(rows) * len(columns) <= 25 for rows, columns in parts_of(height, width))


def depthwise(kernel, stride, padding, *, margins=None, activation=0, multiplier=1, size=(19, 23)):
    net, channels = Net(), 4
    x = net.tensor("x", (1, *size, channels))
    height, width = size
    if margins is not None:
        amounts = net.constant("paddings", [[0, 0], margins[:2], margins[2:], [0, 0]], "int32")
        height, width = height + sum(margins[:2]), width + sum(margins[2:])
        x = net.add("PAD", [x, amounts], "padded", (1, height, width, channels), options=options("PadOptions"))
    if padding == SAME:
        rows, columns = -(-height // stride), -(-width // stride)
    else:
        rows, columns = (height - kernel[0]) // stride + 1, (width - kernel[1]) // stride + 1
    chosen = options(
        "DepthwiseConv2DOptions",
        padding=padding,
        strideH=stride,
        strideW=stride,
        depthMultiplier=multiplier,
        dilationHFactor=1,
        dilationWFactor=1,
        fusedActivationFunction=activation,
    )
    inputs = [x, net.weights("w", 1, *kernel, channels * multiplier), net.weights("b", channels * multiplier)]
    shape = (1, rows, columns, channels * multiplier)
    net.add("DEPTHWISE_CONV_2D", inputs, "y", shape, options=chosen)
    return packed(["x"], ["y"], net)


@given(
    st.tuples(st.integers(3, 11), st.integers(3, 11)).filter(lambda kernel: prod(kernel) > 25),
    st.integers(1, 2),
    st.sampled_from([SAME, "padded"]),
    st.sampled_from([0, RELU, RELU6]),
    st.integers(1, 2),
)
@settings(max_examples=40, deadline=None)
def test_large_depthwise_convolutions_are_split(kernel, stride, padding, activation, multiplier):
    if padding == "padded":
        half = [size // 2 for size in kernel]
        margins = (half[0], kernel[0] - 1 - half[0], half[1], kernel[1] - 1 - half[1])
        data = depthwise(kernel, stride, VALID, margins=margins, activation=activation, multiplier=multiplier)
    else:
        data = depthwise(kernel, stride, SAME, activation=activation, multiplier=multiplier)
    places, other = applied(data, LargeDepthwise())
    found = kinds(other)
    if not places:  # a margin would be negative
        assert padding == SAME
        assert stride == 2
        return
    assert places == ("y",)
    assert found.count("DEPTHWISE_CONV_2D") == len(parts_of(*kernel))
    assert found.count("ADD") == len(parts_of(*kernel)) - 1


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(19, 23), (14, 16)])
def test_seven_by_seven_in_three_parts_without_copies(stride, size):
    places, other = applied(depthwise((7, 7), stride, SAME, size=size), LargeDepthwise())
    assert places == ("y",)
    assert kinds(other) == ["DEPTHWISE_CONV_2D"] * 2 + ["ADD", "DEPTHWISE_CONV_2D", "ADD"]


def test_small_and_dilated_kernels_stay():
    for data in (depthwise((5, 5), 1, SAME), depthwise((7, 7), 1, VALID)):
        assert LargeDepthwise().apply(TfliteDocument(data)) == ()


def test_an_open_size_stays_open():
    net = Net()
    x = net.tensor("x", (1, -1, -1, 4))
    chosen = options("DepthwiseConv2DOptions", padding=SAME, strideH=1, strideW=1, depthMultiplier=1, dilationHFactor=1)
    chosen.dilationWFactor = 1
    net.add("DEPTHWISE_CONV_2D", [x, net.weights("w", 1, 7, 7, 4), net.weights("b", 4)], "y", (1, -1, -1, 4))
    net.operators[-1] = (*net.operators[-1][:3], chosen)
    places, _ = applied(packed(["x"], ["y"], net), LargeDepthwise(), (1, 12, 9, 4))
    assert places == ("y",)


def test_our_own_networks_have_places(tmp_path):
    op = next(op for op in get_space("cifar-mbv3").unique_ops() if "kernel:7" in op.key and "stride:1" in op.key)
    (model,) = export_ops([op], Target("litert"), cache_dir=tmp_path)
    places, _ = applied(model.path.read_bytes(), LargeDepthwise())
    assert len(places) == 1
    (int8,) = export_ops([op], Target("litert", "int8"), cache_dir=tmp_path)
    assert LargeDepthwise().apply(TfliteDocument(int8.path.read_bytes())) == ()  # sums of integers are rounded twice


def pooling(kind, margin, window, stride=2, activation=RELU, value=-np.inf, mode=REFLECT):
    net = Net()
    x = net.tensor("x", (1, 10, 11, 4))
    shape = (1, 10, 11, 4)
    chosen = options("AddOptions", fusedActivationFunction=activation)
    a = net.add("ADD", [x, net.weights("shift", 4)], "a", shape, options=chosen)
    inputs = [a, net.constant("paddings", [[0, 0], [margin] * 2, [margin] * 2, [0, 0]], "int32")]
    pad_options = options("PadV2Options") if kind == "PADV2" else options("MirrorPadOptions", mode=mode)
    if kind == "PADV2":
        inputs.append(net.constant("value", [value]))
    height, width = 10 + 2 * margin, 11 + 2 * margin
    padded = net.add(kind, inputs, "padded", (1, height, width, 4), options=pad_options)
    chosen = options(
        "Pool2DOptions", padding=VALID, strideH=stride, strideW=stride, filterHeight=window, filterWidth=window
    )
    chosen.fusedActivationFunction = 0
    size = ((height - window) // stride + 1, (width - window) // stride + 1)
    net.add("MAX_POOL_2D", [padded], "y", (1, *size, 4), options=chosen)
    return packed(["x"], ["y"], net)


@given(
    st.sampled_from(["MIRROR_PAD", "PADV2"]),
    st.integers(1, 3),
    st.integers(2, 7),
    st.integers(1, 3),
    st.sampled_from([REFLECT, SYMMETRIC]),
)
@settings(max_examples=40, deadline=None)
def test_padding_before_max_pooling(kind, margin, window, stride, mode):
    least = margin + 1 if kind == "PADV2" else 2 * margin + int(mode == REFLECT)
    value = -3.0e38 if margin % 2 else 0.0
    places, other = applied(pooling(kind, margin, window, stride, value=value, mode=mode), PoolPadding())
    assert places == (("y",) if window >= least else ())
    assert (kind in kinds(other)) != bool(places)


@pytest.mark.parametrize("data", [pooling("MIRROR_PAD", 1, 3, activation=0), pooling("PADV2", 1, 3, value=1.0)])
def test_padding_that_matters_stays(data):
    assert PoolPadding().apply(TfliteDocument(data)) == ()


def test_operators_without_options_stay():
    document = TfliteDocument(pooling("MIRROR_PAD", 1, 3))
    for operator in document.graph.operators:
        operator.builtinOptions = None
    data = document.data()
    assert rewritten("litert", data, patterns_for("litert")) == (data, 0)


def with_metadata(data):
    """The file with metadata and a signature."""
    document = TfliteDocument(data)
    model = document.model
    buffer, entry, signature = api.BufferT(), api.MetadataT(), api.SignatureDefT()
    buffer.data = np.frombuffer(b"labels: cat, dog", np.uint8)
    entry.name, entry.buffer = b"LABELS", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata, model.description = [entry], b"a network"
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    for found, field in ((document.graph.inputs, "inputs"), (document.graph.outputs, "outputs")):
        pair = api.TensorMapT()
        pair.name, pair.tensorIndex = field.encode(), int(found[0])
        setattr(signature, field, [pair])
    model.signatureDefs = [signature]
    return document.data()


def contents(value):
    """An object of the schema as plain values."""
    if hasattr(value, "__dict__"):
        return {name: contents(each) for name, each in vars(value).items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [contents(each) for each in value] if isinstance(value, list) else value


def described(document):
    """Name -> everything about a tensor, with the bytes of its buffer in place of the number."""
    found = {}
    for i, tensor in enumerate(document.graph.tensors):
        data = document.model.buffers[tensor.buffer].data
        found[document.name(i)] = {**contents(tensor), "buffer": b"" if data is None else bytes(data)}
    return found


def test_nothing_else_changes():
    data = with_metadata(depthwise((9, 7), 1, VALID, margins=(4, 4, 3, 3)))
    out, places = rewritten("litert", data, patterns_for("litert"))
    plain, other = TfliteDocument(data), TfliteDocument(out)
    assert places == 1
    before, after = described(plain), described(other)
    assert set(before) - set(after) == {"paddings", "padded", "w", "b"}
    assert all(after[name] == before[name] for name in ("x", "y"))
    assert other.model.description == b"a network"
    assert bytes(other.model.buffers[other.model.metadata[0].buffer].data) == b"labels: cat, dog"
    (signature,) = other.model.signatureDefs
    assert other.name(signature.inputs[0].tensorIndex) == "x"
    assert other.name(signature.outputs[0].tensorIndex) == "y"
    assert Interpreter(model_content=out).get_signature_list() == Interpreter(model_content=data).get_signature_list()


def test_a_file_without_edits_keeps_its_content():
    data = with_metadata(pooling("MIRROR_PAD", 1, 3))
    assert contents(TfliteDocument(TfliteDocument(data).data()).model) == contents(TfliteDocument(data).model)


def test_a_file_with_numbered_operators_is_refused():
    document = TfliteDocument(with_metadata(depthwise((7, 7), 1, SAME)))
    document.model.metadata[0].name = b"model_control_dependencies"
    with pytest.raises(ValueError, match="numbers its operators"):
        TfliteDocument(document.data())
