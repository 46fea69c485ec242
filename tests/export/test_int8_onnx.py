"""int8 ONNX models: fused into integer kernels, in each encoding, and as good as those of onnxruntime's quantizer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from support.int8 import calibrated, fast_forms, images, network, onnx_quantized, snr_db
from support.marks import marked

from ofa_profiler import get_space, space_names
from ofa_profiler.errors import UsageError
from ofa_profiler.export import export_ops, for_device, get_exporter
from ofa_profiler.export.onnx import OnnxExporter
from ofa_profiler.export.onnx_graph import OnnxGraph
from ofa_profiler.export.onnx_int8 import quantized
from ofa_profiler.networks.blocks import block_op
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.layers import AvgPool, Conv, Gelu
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.networks.ranges import Ranges
from ofa_profiler.networks.tensors import Span, TensorSpec
from ofa_profiler.protocol.encodings import ENCODINGS, S8S8, U8S7, U8S8, encoding_for
from ofa_profiler.protocol.forms import PLAIN, Forms
from ofa_profiler.protocol.records import Device
from ofa_profiler.protocol.target import Target

FLOAT, INT8 = Target(), Target(precision="int8", encoding="u8s8")


def build(graph: Graph, weights, ranges: Ranges | None = None, forms: Forms = PLAIN, target: Target = INT8) -> bytes:
    exporter = get_exporter(target)
    return exporter.build(graph, weights, target, outputs=["logits"], metadata={}, forms=forms, ranges=ranges)


def session(data: bytes, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run(data: bytes, x: np.ndarray) -> np.ndarray:
    loaded = session(data)
    return np.concatenate([loaded.run(None, {"input": image[None]})[0] for image in x])


def spans_in(data: bytes) -> dict[str, tuple[float, float]]:
    """Tensor -> the values of its smallest and its largest integer."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(data).graph.initializer}
    spans = {}
    for name, scale in values.items():
        zero = values.get(name.replace("/scale", "/zero_point"))
        if name.endswith("/scale") and scale.shape == () and zero.dtype != np.int32:
            limits = np.iinfo(zero.dtype)
            ends = ((limit - int(zero)) * float(scale) for limit in (limits.min, limits.max))
            spans[name.removesuffix("/scale")] = tuple(ends)
    return spans


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_integers_are_those_of_the_encoding(encoding):
    graph, weights = network("cifar-mbv3", seed=5)
    data = build(graph, weights, target=Target(precision="int8", encoding=encoding.name))
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    readers = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert values[node.input[2]].dtype == encoding.activations
        if node.op_type in ("Conv", "Gemm"):
            source, weight, *biases = (readers[name] for name in node.input)
            integers, scales = values[weight.input[0]], values[weight.input[1]]
            assert integers.dtype == np.int8
            assert np.abs(integers.astype(int)).max() == encoding.max_weight
            assert scales.shape == (len(integers),)
            assert not values[weight.input[2]].any()
            for bias in biases:
                assert values[bias.input[0]].dtype == np.int32
                np.testing.assert_allclose(values[bias.input[1]], values[source.input[1]] * scales, rtol=1e-6)


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("space", space_names())
def test_onnxruntime_runs_a_network_by_integer_kernels(space, form, tmp_path):
    graph, weights = network(space, seed=6)
    session(build(graph, weights, forms=fast_forms(INT8, graph) if form == "fast" else PLAIN), tmp_path / "net.onnx")
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node)
    hard_swishes = sum(getattr(node.layer, "activation", "") == "h_swish" for node in graph.nodes)
    # At the beginning, and where a hard-swish runs in float32 or is quantized twice. The classifier gives float32.
    assert operators["DequantizeLinear"] == operators["QuantizeLinear"] - 1 == hard_swishes
    # onnxruntime runs a HardSwish as these two.
    floating = ["HardSigmoid", "Mul"] if form == "plain" and hard_swishes else []
    integer = {"QLinearConv", "QLinearAdd", "QLinearMul", "QGemm", "QLinearGlobalAveragePool", "QLinearAveragePool"}
    moving = {"QuantizeLinear", "DequantizeLinear", "Transpose", "NhwcMaxPool", "Flatten"}
    assert operators.keys() <= integer | moving | set(floating)
    assert all(operators[name] == hard_swishes for name in floating)


# --- against another quantizer, on the same float model and the same ranges -----------------------------------


def theirs(graph: Graph, weights, ours: bytes, ranges: Ranges) -> bytes:
    """The same by onnxruntime's quantizer, with the ranges of our file, which leaves logits in float32."""
    model = build(graph, weights, target=FLOAT)
    spans = {"logits": ranges.spans[graph.outputs[0]], **spans_in(ours)}
    for node in onnx.load_from_string(model).graph.node:
        if node.op_type in ("Relu", "Clip"):  # ours has no such node
            spans.setdefault(node.input[0], spans[node.output[0]])
    return onnx_quantized(model, spans, U8S8)


@pytest.mark.slow
def test_every_kind_of_op_is_that_of_another_quantizer():
    wanted = {
        (op.kind, *(op.attributes[name] for name in ("kernel_size", "stride", "skip", "se", "activation"))): op
        for space in ("cifar-mbv3", "ofa-proxyless-w1.3", "ofa-resnet50")
        for op in sorted(get_space(space).unique_ops(), key=lambda op: -op.macs)
    }
    for op in wanted.values():
        weights = random_weights(op, np.random.default_rng(1))
        ranges = calibrated(op.graph, weights)
        ours = build(op.graph, weights, ranges)
        x = images(op.graph, 2, seed=2)
        got, other = run(ours, x), run(theirs(op.graph, weights, ours, ranges), x)
        low, high = spans_in(ours).get("logits", ranges.spans[op.graph.outputs[0]])
        difference = np.abs(np.clip(got, low, high) - other) / ((high - low) / 255)
        if any(isinstance(node.layer, AvgPool) for node in op.graph.nodes):
            # Theirs gives the mean the scale of its input.
            expected = run(build(op.graph, weights, target=FLOAT), x)
            assert snr_db(expected, got) > snr_db(expected, other)
        else:
            assert difference.max() <= 1.01, op.key


@pytest.mark.slow
@pytest.mark.parametrize("space", marked(space_names(), pytest.mark.long, but=["cifar-mbv3"]))
def test_networks_are_as_exact_as_those_of_another_quantizer(space):
    advantages_db = []
    for seed in range(4):
        graph, weights = network(space, seed)
        ranges = calibrated(graph, weights)
        x = images(graph, 8, seed=9)
        expected = run(build(graph, weights, target=FLOAT), x)
        ours = build(graph, weights, ranges)
        got, other = run(ours, x), run(theirs(graph, weights, ours, ranges), x)
        advantages_db.append(snr_db(expected, got) - snr_db(expected, other))
        fast = run(build(graph, weights, ranges, fast_forms(INT8, graph)), x)
        assert snr_db(expected, fast) > snr_db(expected, got) - 1
        ordered = np.sort(expected, 1)
        is_clear = ordered[:, -1] - ordered[:, -2] > 4 * (got - expected).std()
        assert (got.argmax(1) == other.argmax(1))[is_clear].all()
    assert np.mean(advantages_db) > -0.5
    assert min(advantages_db) > -1


@pytest.mark.parametrize("encoding", [U8S7, S8S8], ids=["u8s7", "s8s8"])
def test_other_encodings_are_the_same_network(encoding):
    graph, weights = network("cifar-mbv3", seed=2)
    ranges, x = calibrated(graph, weights), images(graph, 8, seed=3)
    expected = run(build(graph, weights, target=FLOAT), x)
    for forms in (PLAIN, fast_forms(INT8, graph)):
        best = snr_db(expected, run(build(graph, weights, ranges, forms), x))
        target = Target(precision="int8", encoding=encoding.name)
        # Weights of 7 bits cost up to 3 dB.
        assert snr_db(expected, run(build(graph, weights, ranges, forms, target), x)) > best - 3.5


# --- which encoding ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "facts", "encoding"),
    [
        ("x86_64", {"vnni": True}, U8S8),
        ("x86_64", {"vnni": False}, U8S7),
        ("AMD64", {"vnni": None}, U8S7),
        ("x86_64", {}, U8S7),
        ("aarch64", {"vnni": False, "dotprod": True}, S8S8),
        ("armv7l", {}, S8S8),
        ("arm64", {}, S8S8),
        ("riscv64", {}, U8S7),
        (None, {}, U8S7),
    ],
)
def test_the_processor_decides(machine, facts, encoding):
    assert encoding_for(machine, facts) == encoding
    device = Device.from_json({"type": "device", "time": "2026-01-01T00:00:00", "machine": machine, **facts})
    assert for_device(Target(precision="int8"), device).encoding == encoding.name
    for target in (Target(), Target("litert", "int8"), Target(precision="int8", encoding="s8s8")):
        assert for_device(target, device) == target


def test_encodings_have_models_of_their_own(tmp_path):
    op = block_op("conv", (8, 8, 16), (8, 8, 16), activation="relu")
    targets = [Target(precision="int8", encoding=name) for name in ("", *ENCODINGS)]
    models = [export_ops([op], target, cache_dir=tmp_path)[0] for target in targets]
    assert len({model.path for model in models}) == 4
    assert models[0].sha256 == models[targets.index(Target(precision="int8", encoding="u8s7"))].sha256
    assert len({model.sha256 for model in models}) == 3


def test_a_constant_operand_is_quantized():
    """Such as the factors of a layer from another package."""
    file = OnnxGraph({}, {}, 1, 17)
    factors = file.add_constant("factors", np.array([[[[0.5]], [[-2.0]], [[1.0]]]]))
    file.rename(file.add_node("Mul", ["input", factors], "scale"), "logits")
    file.marks.add("input", "input")
    graph = Graph((TensorSpec("input", "float32", (4, 4, 3)),), (), ("input",))
    int8 = quantized(file, Ranges({"input": Span(-4, 4)}), U8S8, ["input"], ["logits"])
    values = [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, (1, 3, 4, 4))]
    x = images(graph, 2, seed=0)
    got = run(OnnxExporter().model(int8, graph, Target(), values).SerializeToString(), x)
    assert snr_db(x * np.array([0.5, -2, 1]).reshape(3, 1, 1), got) > 35


def test_inputs_that_are_no_numbers_are_refused():
    graph = Graph((TensorSpec("tokens", "int64", (4,)),), (), ("tokens",))
    for target in (INT8, Target("litert", "int8")):
        with pytest.raises(UsageError, match="int8 models take float32 inputs, but tokens is int64; use fp32"):
            get_exporter(target).build(graph, {}, target, outputs=["y"], metadata={})


def test_what_does_not_exist_is_refused():
    for target, words in (
        (Target(precision="int8", encoding="u4s4"), "int8 for onnxruntime has no encoding 'u4s4'; it has u8s8, u8s7"),
        (Target("litert", "int8", encoding="u8s8"), "int8 for litert has no encoding 'u8s8'; it has none"),
        (Target(encoding="u8s8"), "fp32 for onnxruntime has no encoding 'u8s8'"),
        (Target(precision="int3"), "precision 'int3' is not supported with onnxruntime; choose from fp32, int8"),
    ):
        with pytest.raises(UsageError, match=words):
            get_exporter(target)
    get_exporter(INT8, "1.6.0")
    with pytest.raises(UsageError, match=r"int8 needs onnxruntime 1\.6 or newer, whose weights have a scale per chann"):
        get_exporter(INT8, "1.5.0")
    graph = Graph.chain([Conv("conv", 4, 4), Gelu("gelu")], (4, 4, 4))
    with pytest.raises(UsageError, match="gelu: the ONNX exporter has no int8 version of Div; use fp32"):
        build(graph, random_weights(graph, np.random.default_rng(0)))
