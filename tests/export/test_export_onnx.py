"""ONNX export: the numbers of torch, the operators of the whole network, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import zlib
from collections import Counter
from dataclasses import replace

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime import GraphOptimizationLevel as Level

from ofa_profiler import get_space, space_names
from ofa_profiler.base.cache_dir import default_cache_dir
from ofa_profiler.base.progress import Progress
from ofa_profiler.errors import UsageError
from ofa_profiler.export import Model, export_network, export_ops, get_exporter
from ofa_profiler.export.onnx import IR_VERSION, OPSET, OnnxExporter
from ofa_profiler.networks.blocks import block_op
from ofa_profiler.networks.layers import Add
from ofa_profiler.networks.made_up_weights import random_weights, repeating_weights
from ofa_profiler.networks.op import Op
from ofa_profiler.networks.parameters import parameter_shapes
from ofa_profiler.networks.torch_modules import OpModule, StaticNetwork, load_weights
from ofa_profiler.protocol.target import Target

torch.set_num_threads(1)

CIFAR = get_space("cifar-mbv3")


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def session(model, level=Level.ORT_ENABLE_ALL, optimized_path=None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    options.log_severity_level = 3  # it warns that a saved optimized graph suits this machine only
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def assert_same_output(model_path, module, input_shape, rng):
    """Equal to 1e-4 of the largest output."""
    x = rng.standard_normal(input_shape, dtype=np.float32)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x)).numpy()
    (got,) = session(model_path).run(None, {"input": x})
    assert got.shape == expected.shape
    assert expected.std() > 1e-3  # a constant output would prove nothing
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


# --- the same numbers as torch ---------------------------------------------------------------------


def _what_matters(op: Op) -> list:
    return [op.attributes[name] for name in ("kernel_size", "stride", "skip", "se", "activation")]


def sample_of_kinds(space) -> list[Op]:
    """The smallest op of every combination of kind, kernel size, stride, shortcut, squeeze-excite, activation."""
    smallest: dict[tuple, Op] = {}
    for op in sorted(space.unique_ops(), key=lambda op: op.macs):
        expands = op.attributes["mid_channels"] != op.input_shape[-1]
        smallest.setdefault((op.kind, *_what_matters(op), expands), op)
    return list(smallest.values())


@pytest.mark.parametrize("name", space_names())
def test_every_exported_op_gives_the_numbers_of_its_module(name, cache_dir):
    rng = np.random.default_rng(0)
    ops = CIFAR.unique_ops() if name == CIFAR.name else sample_of_kinds(get_space(name))
    for op, model in zip(ops, export_ops(ops, cache_dir=cache_dir), strict=True):
        assert model.key == op.key
        module = OpModule(op)
        load_weights(module, repeating_weights(op))
        assert_same_output(model.path, module, model.inputs[0].shape, rng)


@pytest.mark.parametrize("name", space_names())
@pytest.mark.parametrize("batch", [1, 4])
def test_ops_with_random_weights_and_batches_give_the_numbers_of_torch(name, batch, tmp_path):
    """Here every channel has a BatchNorm of its own, so a wrong folding would show."""
    rng = np.random.default_rng(1)
    for op in sample_of_kinds(get_space(name)):
        weights = random_weights(op, rng)
        data = OnnxExporter().build(op.graph, weights, Target(batch=batch), outputs=["output"], metadata={})
        (tmp_path / "op.onnx").write_bytes(data)
        module = OpModule(op)
        load_weights(module, weights)
        height, width, channels = op.input_shape
        assert_same_output(tmp_path / "op.onnx", module, (batch, channels, height, width), rng)


@pytest.mark.parametrize("size", [4, 5])
def test_pooling_at_the_edge_of_odd_maps(size, tmp_path):
    """Even and odd maps end differently in both kinds of pooling with stride 2."""
    half = (size + 1) // 2
    rng = np.random.default_rng(size)
    for op in (
        block_op("max_pool", (size, size, 8), (half, half, 8), kernel_size=3, stride=2),
        block_op(
            "bottleneck", (size, size, 8), (half, half, 16), kernel_size=3, mid_channels=8, stride=2, activation="relu"
        ),
    ):
        weights = random_weights(op, rng)
        data = OnnxExporter().build(op.graph, weights, Target(batch=1), outputs=["output"], metadata={})
        (tmp_path / "op.onnx").write_bytes(data)
        module = OpModule(op)
        load_weights(module, weights)
        assert_same_output(tmp_path / "op.onnx", module, (1, 8, size, size), rng)


@pytest.mark.parametrize("name", space_names())
@pytest.mark.parametrize("batch", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_whole_networks_give_the_logits_of_torch(name, batch, tmp_path):
    space = get_space(name)
    rng = np.random.default_rng(batch)
    for architecture in (space.smallest, *(space.sample(rng) for _ in range(3))):
        layout = space.layout(architecture)
        weights = random_weights(layout, rng)
        path = export_network(space, architecture, weights, tmp_path / "net.onnx", Target(batch=batch), metadata={})
        network = StaticNetwork(layout)
        load_weights(network, weights)
        resolution = architecture.resolution
        assert_same_output(path, network, (batch, 3, resolution, resolution), rng)


# --- the same operators as in the whole network ----------------------------------------------------


def operators(path, level, folder) -> Counter:
    """What onnxruntime runs for a model, as a count of operators.

    At the level "all" it also works in blocks of channels. Conversions to and from these happen at the
    edges of every graph, more often for ops than for a network; and a shortcut (with the activation
    that follows) or a hard-swish at such an edge is an operator of its own, where inside a network it is
    a step of its convolution. Neither changes what is computed, so conversions are left out and these
    steps are counted as operators.
    """
    optimized = folder / "optimized.onnx"
    session(path, level, optimized)
    found: Counter = Counter()
    for node in onnx.load(optimized, load_external_data=False).graph.node:
        if node.op_type in ("ReorderInput", "ReorderOutput"):
            continue
        activation = next((a.s.decode() for a in node.attribute if a.name == "activation"), "")
        if activation == "HardSwish":
            found.update(["HardSigmoid", "Mul"])
            activation = ""
        if node.op_type == "Conv" and len(node.input) > 3 and node.input[3]:
            found.update(["Add", activation] if activation else ["Add"])
            activation = ""
        found[f"{node.op_type} {activation}".strip()] += 1
    return found


#: Convolutions of the optimised graph, alone or with the activation that follows.
FUSED = (("", ""), ("Fused", "Relu"), ("Fused", "HardSigmoid"), ("Fused", "Clip"))


@pytest.mark.parametrize("level", [Level.ORT_ENABLE_BASIC, Level.ORT_ENABLE_EXTENDED, Level.ORT_ENABLE_ALL])
@pytest.mark.parametrize("name", space_names())
def test_a_network_runs_the_operators_of_its_ops(name, level, cache_dir, tmp_path):
    space = get_space(name)
    architecture = space.sample(np.random.default_rng(11))
    layout = space.layout(architecture)
    path = export_network(space, architecture, repeating_weights(layout), tmp_path / "net.onnx", metadata={})
    of_ops: Counter = Counter()
    for model in export_ops([op for _, op in layout], cache_dir=cache_dir):
        of_ops += operators(model.path, level, tmp_path)
    assert operators(path, level, tmp_path) == of_ops
    if level == Level.ORT_ENABLE_EXTENDED:
        convolutions = sum(node.op_type == "Conv" for node in onnx.load(path).graph.node)
        assert sum(of_ops[f"{kind}Conv {activation}".strip()] for kind, activation in FUSED) == convolutions
        # A bottleneck's last activation follows its addition, not a convolution.
        assert of_ops["Relu"] == sum(
            node.layer == Add("shortcut", "relu") for _, op in layout for node in op.graph.nodes
        )
        assert of_ops["BatchNormalization"] == of_ops["Clip"] == 0


def test_a_network_holds_the_nodes_of_its_ops(tmp_path):
    """Also the attributes: each op's nodes appear in the network's file, in order."""

    def nodes(model):
        return [
            (node.op_type, sorted(onnx.helper.printable_attribute(a) for a in node.attribute))
            for node in model.graph.node
        ]

    layout = CIFAR.layout(CIFAR.largest)
    path = export_network(CIFAR, CIFAR.largest, repeating_weights(layout), tmp_path / "net.onnx", metadata={})
    models = export_ops([op for _, op in layout], cache_dir=tmp_path)
    assert nodes(onnx.load(path)) == [node for model in models for node in nodes(onnx.load(model.path))]


# --- the files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
def test_network_file_says_what_it_is(tmp_path, batch):
    layout = CIFAR.layout(CIFAR.largest)
    metadata = {"weights": "untrained", "labels": '["airplane"]', "architecture": json.dumps(CIFAR.largest.to_json())}
    path = export_network(
        CIFAR, CIFAR.largest, repeating_weights(layout), tmp_path / "net.onnx", Target(batch=batch), metadata=metadata
    )
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (IR_VERSION, OPSET) == (8, 17)
    opened = session(path)
    assert opened.get_modelmeta().custom_metadata_map == metadata
    assert [(i.name, i.shape, i.type) for i in opened.get_inputs()] == [("input", [batch, 3, 32, 32], "tensor(float)")]
    assert [(o.name, o.shape) for o in opened.get_outputs()] == [("logits", [batch, 10])]
    assert [p.key for p in model.metadata_props] == sorted(metadata)


def test_op_file_says_what_it_is(cache_dir):
    op = next(op for op in CIFAR.unique_ops() if op.attributes["se"])
    (model,) = export_ops([op], Target(batch=2), cache_dir=cache_dir)
    height, width, channels = op.input_shape
    opened = session(model.path)
    assert opened.get_modelmeta().custom_metadata_map == {"op": op.key}
    assert opened.get_inputs()[0].shape == list(model.inputs[0].shape) == [2, channels, height, width]
    assert opened.get_outputs()[0].name == "output"
    assert opened.get_outputs()[0].shape == [2, op.output_shape[-1], *op.output_shape[:-1]]


def test_kit_compresses_well(cache_dir):
    models = export_ops(CIFAR.unique_ops(), cache_dir=cache_dir)
    whole = b"".join(model.path.read_bytes() for model in models)
    assert len(zlib.compress(whole)) < len(whole) / 8


def test_weights_are_checked_before_anything_is_written(tmp_path):
    layout = CIFAR.layout(CIFAR.largest)
    weights = {k: v for k, v in repeating_weights(layout).items() if not k.startswith("stem")}
    with pytest.raises(UsageError, match=r"stem\.conv\.conv\.weight is missing"):
        export_network(CIFAR, CIFAR.largest, weights, tmp_path / "net.onnx", metadata={})
    assert list(tmp_path.iterdir()) == []


# --- what is not supported is refused --------------------------------------------------------------


def build(op: Op) -> bytes:
    return OnnxExporter().build(op.graph, repeating_weights(op), Target(batch=1), outputs=["output"], metadata={})


def test_unknown_activation_is_refused():
    op = CIFAR.unique_ops()[0]
    with pytest.raises(UsageError, match="unknown activation 'mish'; choose from relu, relu6, h_swish"):
        build(replace(op, attributes={**op.attributes, "activation": "mish"}))


def test_impossible_shortcut_is_refused():
    block = next(op for op in CIFAR.unique_ops() if op.kind == "mbconv" and op.attributes["stride"] == 2)
    with pytest.raises(UsageError, match=r"layer shortcut cannot add the different shapes \(\d+, "):
        build(replace(block, attributes={**block.attributes, "skip": True}))


def test_unsupported_runtime_and_precision_are_refused_with_what_is_supported(tmp_path):
    assert get_exporter(Target()).precisions == ("fp32", "int8")
    with pytest.raises(UsageError, match="unknown runtime 'tvm'; choose from onnxruntime, litert"):
        get_exporter(Target("tvm"))
    with pytest.raises(UsageError, match="precision 'fp8' is not supported with onnxruntime; choose from fp32, int8"):
        export_ops(CIFAR.unique_ops(), Target(precision="fp8"), cache_dir=tmp_path)
    with pytest.raises(UsageError, match="batch 0 is not a positive number"):
        export_ops(CIFAR.unique_ops(), Target(batch=0), cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- the cache -------------------------------------------------------------------------------------

SOME_OPS = CIFAR.unique_ops()[::30]

EXPORT_SCRIPT = """
import sys
from pathlib import Path
from ofa_profiler import get_space
from ofa_profiler.export import export_ops
for model in export_ops(get_space("cifar-mbv3").unique_ops()[::30], cache_dir=Path(sys.argv[1])):
    print(model.sha256)
"""


def export_process(cache_dir, **environment) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", EXPORT_SCRIPT, str(cache_dir)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_fresh_processes_give_the_same_bytes_at_the_same_time(tmp_path):
    processes = [export_process(tmp_path / "shared", PYTHONHASHSEED=str(i)) for i in range(3)]
    outputs = [process.communicate() for process in processes]
    expected = [model.sha256 for model in export_ops(SOME_OPS, cache_dir=tmp_path / "own")]
    assert [(out.split(), err) for out, err in outputs] == [(expected, "")] * 3
    assert len(list((tmp_path / "shared" / "models").iterdir())) == len(SOME_OPS)


def test_bytes_change_only_with_the_version_of_the_exporter(cache_dir):
    """Journals and caches know models by their bytes. Other bytes: raise `OnnxExporter.version`, and this hash."""
    models = export_ops(CIFAR.unique_ops(), cache_dir=cache_dir)
    together = hashlib.sha256("".join(model.sha256 for model in models).encode()).hexdigest()
    assert (OnnxExporter.version, together[:16]) == (1, "758916ccddc2bf8c")


def test_models_are_taken_from_the_cache(tmp_path, monkeypatch):
    first = export_ops(SOME_OPS, cache_dir=tmp_path)
    monkeypatch.setattr(OnnxExporter, "build", lambda *args, **kwargs: pytest.fail("built again"))
    seen = []
    assert export_ops(SOME_OPS, cache_dir=tmp_path, progress=seen.append) == first
    assert seen == [Progress("export", i + 1, len(SOME_OPS)) for i in range(len(SOME_OPS))]
    for model in first:
        assert model == Model.from_file(model.key, model.path, model.inputs)


def test_what_determines_a_model_has_a_file_of_its_own(tmp_path, monkeypatch):
    (one,), (four,) = (export_ops(SOME_OPS[:1], Target(batch=batch), cache_dir=tmp_path) for batch in (1, 4))
    assert one.path != four.path
    monkeypatch.setattr(OnnxExporter, "version", OnnxExporter.version + 1)
    (newer,) = export_ops(SOME_OPS[:1], cache_dir=tmp_path)
    assert newer.path != one.path
    assert one.path.exists()


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-100], lambda data: data[:-1] + b"\x00", None])
def test_damaged_model_is_built_anew(tmp_path, damage):
    first = export_ops(SOME_OPS, cache_dir=tmp_path)
    victim = first[2].path
    data = victim.read_bytes()
    if damage is None:
        victim.unlink()
    else:
        assert damage(data) != data
        victim.write_bytes(damage(data))
    assert export_ops(SOME_OPS, cache_dir=tmp_path) == first
    assert victim.read_bytes() == data


def test_a_folder_in_the_place_of_a_model_goes(tmp_path):
    first = export_ops(SOME_OPS[:1], cache_dir=tmp_path)
    data = first[0].path.read_bytes()
    first[0].path.unlink()
    (first[0].path / "some" / "folder").mkdir(parents=True)
    assert export_ops(SOME_OPS[:1], cache_dir=tmp_path) == first
    assert first[0].path.read_bytes() == data


def test_leftovers_of_killed_runs_are_removed_but_not_those_of_running_ones(tmp_path):
    (tmp_path / "models").mkdir()
    old, young = (tmp_path / "models" / f".x-{age}.onnx.abc.tmp" for age in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    two_days_ago = time.time() - 48 * 3600
    os.utime(old, (two_days_ago, two_days_ago))
    export_ops(SOME_OPS[:1], cache_dir=tmp_path)
    assert not old.exists()
    assert young.exists()


def test_full_disk_is_one_clear_line_and_leaves_nothing_half_written(tmp_path):
    pytest.importorskip("resource", reason="file size limits are a POSIX matter")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
    done = subprocess.run(
        [sys.executable, "-c", limit + EXPORT_SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1].startswith("ofa_profiler.errors.UsageError: cannot write ")
    for path in (tmp_path / "models").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem.partition("-")[2]


def test_cache_that_cannot_be_a_folder_is_one_clear_line(tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(UsageError, match=r"^cannot read the cache .*models: \w[^\n]*$"):
        export_ops(SOME_OPS[:1], cache_dir=tmp_path)


def test_default_cache_respects_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "ofa-profiler"
    (model,) = export_ops(SOME_OPS[:1])
    assert tmp_path / "ofa-profiler" / "models" == model.path.parent
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache_dir().is_absolute()


def test_exporting_ops_does_not_import_torch_or_a_runtime(tmp_path):
    script = EXPORT_SCRIPT + "print(sorted({'torch', 'tensorflow', 'onnxruntime', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_parameters_of_an_op_have_no_slot_in_their_names():
    assert "conv.conv.weight" in parameter_shapes(CIFAR.unique_ops()[0])
