"""int8 TFLite models: by the specification, in one partition, and as good as those of another quantizer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tflite
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tflite_files
from support.int8 import calibrated, edge_quantized, fast_forms, images, network, snr_db
from support.marks import marked
from support.tflite_files import operators, run, tensors

from ofa_profiler import get_space, space_names
from ofa_profiler.errors import UsageError
from ofa_profiler.export import export_network, export_ops, get_exporter
from ofa_profiler.networks.blocks import block_op
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.layers import Conv, Gelu, MaxPool, SqueezeExcite
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.networks.ranges import Ranges, made_up_ranges
from ofa_profiler.networks.tensors import Span
from ofa_profiler.protocol.forms import PLAIN, Forms
from ofa_profiler.protocol.target import Target

FLOAT, INT8 = Target("litert"), Target("litert", "int8")
#: Operator -> version with int8, as in `op_version.cc` of TensorFlow.
VERSIONS = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2,
    "FULLY_CONNECTED": 4,
    "HARD_SWISH": 1,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MIRROR_PAD": 2,
    "MUL": 2,
    "PAD": 2,
    "QUANTIZE": 1,
}
SAME_SCALE = {"AVERAGE_POOL_2D", "MAX_POOL_2D", "MIRROR_PAD", "PAD"}


def build(graph: Graph, weights, ranges: Ranges | None = None, forms: Forms = PLAIN, target: Target = INT8) -> bytes:
    exporter = get_exporter(target)
    return exporter.build(graph, weights, target, outputs=["logits"], metadata={}, forms=forms, ranges=ranges)


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("space", space_names())
def test_a_network_is_integer_by_the_specification(space, form):
    graph, weights = network(space, seed=5)
    forms = fast_forms(INT8, graph) if form == "fast" else PLAIN
    data = build(graph, weights, forms=forms)
    stored, nodes = tensors(data), operators(data)
    assert {(node.name, node.version) for node in nodes} <= VERSIONS.items()
    assert [node.name for node in nodes].count("QUANTIZE") == [node.name for node in nodes].count("DEQUANTIZE") == 1
    assert {name for name, tensor in stored.items() if tensor.dtype == "FLOAT32"} == {"input", "logits"}
    for node in nodes[1:-1]:
        source, result = stored[node.inputs[0]], stored[node.output]
        assert (result.dtype, len(result.scales)) == ("INT8", 1)
        assert result.scales[0] > 0
        assert -128 <= result.zero_points[0] <= 127
        if node.name in SAME_SCALE:
            assert (source.scales, source.zero_points) == (result.scales, result.zero_points)
        if node.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            weight, bias = (stored[name] for name in node.inputs[1:])
            assert np.abs(weight.values.astype(int)).max() == 127
            assert not weight.zero_points.any()
            assert not bias.zero_points.any()
            assert (bias.dtype, bias.axis) == ("INT32", 0)
            np.testing.assert_allclose(bias.scales, source.scales[0] * weight.scales, rtol=1e-6)
            axis = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}.get(node.name)
            assert len(weight.scales) == (1 if axis is None else weight.shape[axis])
            assert weight.axis == (axis or 0)


@pytest.mark.parametrize("space", space_names())
def test_xnnpack_runs_a_network_in_fast_forms_as_one_partition(space):
    graph, weights = network(space, seed=6)
    assert tflite_files.partitions(build(graph, weights, forms=fast_forms(INT8, graph))) == 1


def test_hard_swish_in_the_plain_form_divides_the_network():
    graph, weights = network("cifar-mbv3", seed=6)
    assert tflite_files.partitions(build(graph, weights)) > 5


def test_files_have_a_signature_with_their_inputs_and_outputs():
    graph, weights = network("cifar-mbv3", seed=0)
    for target in (FLOAT, INT8):
        data = build(graph, weights, target=target)
        assert tflite_files.load(data).get_signature_list() == {
            "serving_default": {"inputs": ["input"], "outputs": ["logits"]}
        }
        x = images(graph, 1, seed=0).transpose(0, 2, 3, 1)
        got = tflite_files.load(data).get_signature_runner()(input=x)["logits"]
        np.testing.assert_array_equal(got, run(data, x))


# --- against another quantizer, on the same float model and the same ranges -----------------------------------


def theirs(graph: Graph, weights, ours: bytes, forms: Forms) -> bytes:
    """The same by ai-edge-quantizer, with the ranges of all tensors of our file."""
    spans = {name: t.span for name, t in tensors(ours).items() if t.dtype == "INT8" and t.values is None}
    spans |= {"input": spans["input/QUANTIZE"], "logits": spans["logits/int8"]}
    return edge_quantized(build(graph, weights, forms=forms, target=FLOAT), spans)


def ops_of_every_kind():
    """An op of every kind, in all forms of all its layers."""
    wanted = {
        (op.kind, *(op.attributes[name] for name in ("kernel_size", "stride", "skip", "se", "activation"))): op
        for space in ("cifar-mbv3", "ofa-proxyless-w1.3", "ofa-resnet50")
        for op in sorted(get_space(space).unique_ops(), key=lambda op: -op.macs)
    }
    return list(wanted.values())


@pytest.mark.slow
def test_every_kind_of_op_is_that_of_another_quantizer():
    for op in ops_of_every_kind():
        weights = random_weights(op, np.random.default_rng(1))
        ranges = calibrated(op.graph, weights)
        x = images(op.graph, 2, seed=2).transpose(0, 2, 3, 1)
        for forms in (PLAIN, fast_forms(INT8, op.graph)):
            ours = build(op.graph, weights, ranges, forms)
            step = tensors(ours)["logits/int8"].scales[0]
            difference = np.abs(run(ours, x) - run(theirs(op.graph, weights, ours, forms), x)) / step
            # One step, where a value of one of the tensors inside is rounded differently, some more.
            assert (difference <= 1.01).mean() > 0.999, op.key
            assert difference.max() <= 3.01, op.key


@pytest.mark.slow
@pytest.mark.parametrize("space", marked(space_names(), pytest.mark.long, but=["cifar-mbv3"]))
def test_networks_are_as_exact_as_those_of_another_quantizer(space):
    advantages_db = []
    for seed in range(4):
        graph, weights = network(space, seed)
        ranges, forms = calibrated(graph, weights), fast_forms(INT8, graph)
        x = images(graph, 16, seed=9).transpose(0, 2, 3, 1)
        expected = run(build(graph, weights, target=FLOAT), x)
        ours = build(graph, weights, ranges, forms)
        got, other = run(ours, x), run(theirs(graph, weights, ours, forms), x)
        advantages_db.append(snr_db(expected, got) - snr_db(expected, other))
        assert snr_db(expected, got) > 18
        ordered = np.sort(expected, 1)
        is_clear = ordered[:, -1] - ordered[:, -2] > 4 * (got - expected).std()
        assert (got.argmax(1) == other.argmax(1))[is_clear].all()
    # Of two equally good quantizations of one network, one is up to 0.6 dB better by chance.
    assert np.mean(advantages_db) > -0.5
    assert min(advantages_db) > -1


# --- single cases ------------------------------------------------------------------------------------------------


def test_a_channel_of_zeros_and_one_of_tiny_weights_keep_their_bias():
    conv = Conv("conv", 4, 3, bias=True, batch_norm=False)
    graph = Graph.chain([conv], (4, 4, 4))
    weight = np.ones((3, 4, 1, 1), np.float32)
    weight[1], weight[2] = 0, 1e-12
    weights = {"conv.conv.weight": weight, "conv.conv.bias": np.array([0.5, 1.5, -2.5], np.float32)}
    spans = {"input": Span(-1, 1), "conv": Span(-4, 4)}
    x = np.random.default_rng(0).uniform(-1, 1, (1, 4, 4, 4)).astype(np.float32)
    got = run(build(graph, weights, Ranges(spans)), x)
    np.testing.assert_allclose(got[0, ..., 0], x[0].sum(-1) + 0.5, atol=0.06)
    np.testing.assert_allclose(got[0, ..., 1:], np.broadcast_to([1.5, -2.5], (4, 4, 2)), atol=8 / 255)


def test_padding_is_zero_in_max_pooling_and_before_strides():
    """TFLite pads with the zero point."""
    graph = Graph.chain([Conv("conv", 3, 4, 3, 2, activation="relu"), MaxPool("pool", nonnegative=True)], (9, 9, 3))
    weights = random_weights(graph, np.random.default_rng(0))
    x = images(graph, 2, seed=1).transpose(0, 2, 3, 1)
    ranges = calibrated(graph, weights)
    for forms in (PLAIN, fast_forms(INT8, graph)):
        got = run(build(graph, weights, ranges, forms), x)
        assert snr_db(run(build(graph, weights, target=FLOAT), x), got) > 30


def test_a_split_without_ranges_of_its_parts_is_bounded():
    graph = Graph.chain([Conv("conv", 4, 4, 7, 1, 4, activation="h_swish")], (9, 9, 4))
    weights = random_weights(graph, np.random.default_rng(0))
    ranges, forms = calibrated(graph, weights), fast_forms(INT8, graph)
    assert "conv.part0" in ranges.spans
    assert "conv.sum1" in ranges.spans
    known = Ranges({name: ranges.spans[name] for name in made_up_ranges(graph).spans})
    x = images(graph, 4, seed=1).transpose(0, 2, 3, 1)
    expected = run(build(graph, weights, target=FLOAT), x)
    exact, bounded = (snr_db(expected, run(build(graph, weights, r, forms), x)) for r in (ranges, known))
    assert exact > bounded + 1 > 15


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**32))
def test_a_saturating_gate_is_a_hard_sigmoid(channels, mid, size, seed):
    """Also where the gates are closed or open: their inputs are far outside of [-3, 3]."""
    rng = np.random.default_rng(seed)
    graph = Graph.chain([SqueezeExcite("se", channels, mid)], (size, size, channels))
    weights = {name: 3 * array for name, array in random_weights(graph, rng).items()}
    ranges, x = calibrated(graph, weights), images(graph, 2, seed=seed % 97).transpose(0, 2, 3, 1)
    plain, gate = (
        build(graph, weights, ranges, forms) for forms in (PLAIN, Forms({"squeeze-excite": "saturating_gate"}))
    )
    expected = run(build(graph, weights, target=FLOAT), x)
    step = tensors(gate)["logits/int8"].scales[0]
    assert np.abs(run(gate, x) - expected).max() <= np.abs(run(plain, x) - expected).max() + 2 * step
    assert [node.name for node in operators(gate)].count("MUL") == 1
    assert [node.name for node in operators(plain)].count("MUL") == 2


def test_layers_without_an_int8_version_are_refused():
    graph = Graph.chain([Conv("conv", 4, 4), Gelu("gelu")], (4, 4, 4))
    with pytest.raises(UsageError, match="gelu: the TFLite exporter has no int8 version of GELU; use fp32"):
        build(graph, random_weights(graph, np.random.default_rng(0)))


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="precision 'int3' is not supported with litert; choose from fp32, int8"):
        get_exporter(Target("litert", "int3"))


def test_ops_are_exported_in_int8_in_all_forms(tmp_path):
    op = block_op("mbconv", (8, 8, 16), (8, 8, 16), kernel_size=7, mid_channels=32, skip=True, activation="h_swish")
    (model,) = export_ops([op], INT8, with_variants=True, cache_dir=tmp_path)
    assert [forms.name for forms in model.variants] == ["arithmetic", "split", "arithmetic+split"]
    assert model.inputs[0].dtype == "float32"
    for file in (model, *model.variants.values()):
        assert "INT8" in {tensor.dtype for tensor in tensors(file.path.read_bytes()).values()}
    (plain,) = export_ops([op], FLOAT, cache_dir=tmp_path)
    assert plain.path != model.path
    again = export_ops([op], INT8, with_variants=True, cache_dir=tmp_path / "other")[0]
    assert again.sha256 == model.sha256


def test_a_network_says_what_its_ranges_are(tmp_path):
    space = get_space("cifar-mbv3").with_resolutions([24])
    architecture = space.sample(np.random.default_rng(0))
    graph = Graph.joined((slot, op.graph) for slot, op in space.layout(architecture))
    weights = random_weights(graph, np.random.default_rng(0))
    ranges = calibrated(graph, weights)

    def export(given: Ranges | None) -> dict[str, str]:
        path = export_network(
            space, architecture, weights, tmp_path / "net.tflite", INT8, metadata={"weights": "untrained"}, ranges=given
        )
        model = tflite.Model.GetRootAs(path.read_bytes())
        entries = (model.Metadata(i) for i in range(model.MetadataLength()))
        return {e.Name().decode(): model.Buffers(e.Buffer()).DataAsNumpy().tobytes().decode() for e in entries}

    assert export(None) == {"precision": "int8", "ranges": "made up", "weights": "untrained"}
    assert export(ranges)["ranges"] == "calibrated"
    missing = replace(ranges, spans={name: span for name, span in ranges.spans.items() if name != "stem.conv"})
    with pytest.raises(UsageError, match=r"ranges: stem\.conv is missing; the ranges belong to another network"):
        export(missing)
