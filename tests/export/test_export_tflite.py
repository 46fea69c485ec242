"""TFLite export: the numbers of torch by the real runtime, the same bytes every time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_profiler import get_space, space_names
from ofa_profiler.errors import UsageError
from ofa_profiler.export import export_network, export_ops, get_exporter
from ofa_profiler.export.tflite import TfliteExporter
from ofa_profiler.networks.blocks import as_graph, block_op
from ofa_profiler.networks.made_up_weights import random_weights, repeating_weights
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.torch_modules import OpModule, StaticNetwork, load_weights
from ofa_profiler.protocol.target import Target

torch.set_num_threads(1)

CIFAR = get_space("cifar-mbv3")


def build(op: Op, weights, batch: int = 1) -> bytes:
    return TfliteExporter().build(op.graph, weights, Target("litert", batch=batch), outputs=["output"], metadata={})


def run(model: bytes, x: np.ndarray) -> np.ndarray:
    """Run a model on (N, C, H, W) -> its output in torch's order."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert source["name"] == "input"
    assert target["name"] in ("output", "logits")
    interpreter.set_tensor(source["index"], np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    interpreter.invoke()
    y = interpreter.get_tensor(target["index"])
    assert list(y.shape) == list(target["shape"])
    return y.transpose(0, 3, 1, 2) if y.ndim == 4 else y


def assert_same_output(model: bytes, module, input_shape, rng) -> None:
    """Equal to 1e-4 of the largest output. `input_shape` is torch's."""
    x = rng.standard_normal(input_shape, dtype=np.float32)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x)).numpy()
    got = run(model, x)
    assert got.shape == expected.shape
    assert expected.std() > 1e-3  # a constant output would prove nothing
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def assert_op_is_right(op: Op, rng, batch: int = 1) -> None:
    """Here every channel has a BatchNorm of its own, so a wrong folding would show."""
    weights = random_weights(op, rng)
    module = OpModule(op)
    load_weights(module, weights)
    height, width, channels = op.input_shape
    assert_same_output(build(op, weights, batch), module, (batch, channels, height, width), rng)


def _what_matters(op: Op) -> list:
    return [op.attributes[name] for name in ("kernel_size", "stride", "skip", "se", "activation")]


def sample_of_kinds(space) -> list[Op]:
    """The smallest op of every combination of what makes its graph another one, odd and even maps apart."""
    smallest: dict[tuple, Op] = {}
    for op in sorted(space.unique_ops(), key=lambda op: op.macs):
        expands, odd = op.attributes["mid_channels"] != op.input_shape[-1], op.input_shape[0] % 2
        smallest.setdefault((op.kind, *_what_matters(op), expands, odd), op)
    return list(smallest.values())


@pytest.mark.parametrize("name", space_names())
def test_every_kind_of_op_gives_the_numbers_of_torch(name):
    rng = np.random.default_rng(1)
    for batch, op in enumerate(sample_of_kinds(get_space(name))):
        assert_op_is_right(op, rng, 1 + batch % 2)


def test_every_op_of_a_space_gives_the_numbers_of_its_module_from_the_cache(tmp_path):
    rng = np.random.default_rng(0)
    ops = CIFAR.unique_ops()
    for op, model in zip(ops, export_ops(ops, target=Target("litert"), cache_dir=tmp_path), strict=True):
        height, width, channels = op.input_shape
        assert (model.key, model.path.suffix, model.inputs[0].shape) == (
            op.key,
            ".tflite",
            (1, height, width, channels),
        )
        assert model.sha256 == hashlib.sha256(model.path.read_bytes()).hexdigest()
        module = OpModule(op)
        load_weights(module, repeating_weights(op))
        assert_same_output(model.path.read_bytes(), module, (1, channels, height, width), rng)


@pytest.mark.parametrize("size", [4, 5])
def test_pooling_at_the_edge_of_odd_maps(size):
    """Even and odd maps end differently in both kinds of pooling with stride 2."""
    half = (size + 1) // 2
    rng = np.random.default_rng(size)
    assert_op_is_right(block_op("max_pool", (size, size, 8), (half, half, 8), kernel_size=3, stride=2), rng)
    shapes = (size, size, 8), (half, half, 16)
    assert_op_is_right(block_op("bottleneck", *shapes, kernel_size=3, mid_channels=8, stride=2, activation="relu"), rng)


def test_max_pooling_of_negative_values_pads_with_none():
    op = block_op("max_pool", (6, 6, 4), (3, 3, 4), kernel_size=3, stride=2)
    x = -1 - np.random.default_rng(0).random((1, 4, 6, 6), dtype=np.float32)
    expected = OpModule(op)(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(run(build(op, {}), x), expected)
    assert (expected < 0).all()


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(2, 12),
    kernel_size=st.sampled_from([1, 3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    se=st.booleans(),
    activation=st.sampled_from(["relu", "relu6", "h_swish"]),
    channels=st.sampled_from([(8, 8, 8), (8, 24, 16)]),
    seed=st.integers(0, 99),
)
def test_blocks_of_any_shape_give_the_numbers_of_torch(size, kernel_size, stride, se, activation, channels, seed):
    inputs, mid, outputs = channels
    half = -(-size // stride)
    op = block_op(
        "mbconv",
        (size, size, inputs),
        (half, half, outputs),
        kernel_size=kernel_size,
        mid_channels=mid,
        stride=stride,
        skip=stride == 1 and inputs == outputs,
        se=se,
        activation=activation,
    )
    assert_op_is_right(op, np.random.default_rng(seed))


@pytest.mark.parametrize("name", space_names())
def test_whole_networks_give_the_logits_of_torch(name, tmp_path):
    space = get_space(name)
    rng = np.random.default_rng(3)
    for architecture in (space.smallest, space.sample(rng)):
        layout = space.layout(architecture)
        weights = random_weights(layout, rng)
        path = export_network(
            space, architecture, weights, tmp_path / "net.tflite", metadata={}, target=Target("litert")
        )
        network = StaticNetwork(layout)
        load_weights(network, weights)
        resolution = architecture.resolution
        assert_same_output(path.read_bytes(), network, (1, 3, resolution, resolution), rng)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 3))
def test_any_architecture_gives_the_logits_of_torch(seed, batch):
    rng = np.random.default_rng(seed)
    architecture = CIFAR.sample(rng)
    layout = CIFAR.layout(architecture)
    weights = random_weights(layout, rng)
    model = TfliteExporter().build(
        as_graph(layout), weights, Target("litert", batch=batch), outputs=["logits"], metadata={}
    )
    network = StaticNetwork(layout)
    load_weights(network, weights)
    assert_same_output(model, network, (batch, 3, architecture.resolution, architecture.resolution), rng)


# --- the graph and the file ------------------------------------------------------------------------


def operators(model: bytes) -> list[str]:
    interpreter = Interpreter(model_content=model)
    return [details["op_name"] for details in interpreter._get_ops_details() if details["op_name"] != "DELEGATE"]


def test_a_block_has_no_more_operators_than_a_converter_would_make():
    op = block_op(
        "mbconv", (8, 8, 8), (4, 4, 8), kernel_size=5, mid_channels=16, stride=2, se=True, activation="h_swish"
    )
    names = operators(build(op, repeating_weights(op)))
    expand, depthwise = ["CONV_2D", "HARD_SWISH"], ["PAD", "DEPTHWISE_CONV_2D", "HARD_SWISH"]
    squeeze_excite = ["MEAN", "CONV_2D", "CONV_2D", "MUL", "MUL"]
    assert names == [*expand, *depthwise, *squeeze_excite, "CONV_2D"]


@pytest.mark.parametrize("name", space_names())
def test_xnnpack_takes_networks_whole(name):
    """But for the mirrored edge of a max pooling, nothing is left to slower kernels."""
    space = get_space(name)
    layout = space.layout(space.smallest)
    model = TfliteExporter().build(
        as_graph(layout), repeating_weights(layout), Target("litert", batch=1), outputs=["logits"], metadata={}
    )
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    names = [node["op_name"] for node in interpreter._get_ops_details()]
    assert names.count("DELEGATE") == 1 + names.count("MIRROR_PAD") == 1 + (name == "ofa-resnet50")


def test_weights_are_aligned_for_vector_instructions():
    import tflite

    op = CIFAR.ops(CIFAR.smallest)[0]
    data = build(op, repeating_weights(op))
    model = tflite.Model.GetRootAs(data)
    sizes = []
    for i in range(model.BuffersLength()):
        if model.Buffers(i).DataLength():
            values = model.Buffers(i).DataAsNumpy()
            sizes.append(values.nbytes)
            assert (values.ctypes.data - np.frombuffer(data, np.uint8).ctypes.data) % 16 == 0
    assert max(sizes) > 100


def test_metadata_is_in_the_file_sorted_by_name(tmp_path):
    import tflite

    architecture = CIFAR.smallest
    weights = repeating_weights(CIFAR.layout(architecture))
    how = {"weights": "untrained", "labels": '["cat", "fußball"]'}
    path = export_network(CIFAR, architecture, weights, tmp_path / "n.tflite", metadata=how, target=Target("litert"))
    model = tflite.Model.GetRootAs(path.read_bytes())
    entries = [model.Metadata(i) for i in range(model.MetadataLength())]
    found = {e.Name().decode(): model.Buffers(e.Buffer()).DataAsNumpy().tobytes().decode() for e in entries}
    assert found == how
    assert list(found) == sorted(how)


def test_the_same_op_gives_the_same_bytes_in_every_process():
    op = max(CIFAR.unique_ops(), key=lambda op: (op.attributes["se"], op.macs))
    code = (
        "import hashlib; from ofa_profiler import get_space;"
        "from ofa_profiler.networks.made_up_weights import repeating_weights;"
        "from ofa_profiler.protocol.target import Target;"
        "from ofa_profiler.export.tflite import TfliteExporter;"
        "op = max(get_space('cifar-mbv3').unique_ops(), key=lambda op: (op.attributes['se'], op.macs));"
        "data = TfliteExporter().build(op.graph, repeating_weights(op), Target('litert'), outputs=['output'],"
        " metadata={}); print(hashlib.sha256(data).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert done.stdout.strip() == hashlib.sha256(build(op, repeating_weights(op))).hexdigest()


def test_what_cannot_be_exported_is_refused_and_nothing_written(tmp_path: Path):
    op = block_op("mbconv", (8, 8, 8), (8, 8, 8), kernel_size=3, mid_channels=16, activation="swish")
    with pytest.raises(UsageError, match="unknown activation 'swish'"):
        export_ops([op], target=Target("litert"), cache_dir=tmp_path)
    assert not list(tmp_path.glob("**/*.tflite"))
    with pytest.raises(UsageError, match="precision 'int4' is not supported with litert; choose from fp32"):
        get_exporter(Target("litert", "int4"))
