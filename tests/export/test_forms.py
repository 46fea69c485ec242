"""Forms: each computes what the plain form and torch compute, for every layer that it applies to."""

from __future__ import annotations

import os
from dataclasses import replace

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime
import pytest
import tflite
import torch
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_profiler import get_space
from ofa_profiler.errors import UsageError
from ofa_profiler.export import export_network, export_ops, get_exporter
from ofa_profiler.export.forms import base, depthwise_split
from ofa_profiler.export.forms.base import (
    ActivationForm,
    AnyForm,
    Form,
    all_forms,
    candidates,
    combinations,
    register_form,
)
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.layers import AvgPool, Conv, Layer, MaxPool, SqueezeExcite
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.networks.torch_modules import GraphModule, load_weights
from ofa_profiler.protocol.forms import PLAIN, Forms
from ofa_profiler.protocol.target import Target
from ofa_profiler.spaces import space_names

torch.set_num_threads(1)
for name in ("onnxruntime", "litert"):
    get_exporter(Target(name))  # registers its forms

#: Forms whose integers must saturate, so they are no float32 models: `test_int8_tflite.py` tests them.
INTEGER_FORMS = {"saturating_gate"}
FORMS = {
    f"{form.runtime}, {form.name}": form
    for form in all_forms()
    if isinstance(form, Form) and form.name not in INTEGER_FORMS
}
ACTIVATION_FORMS = {f"{form.runtime}, {form.name}": form for form in all_forms() if isinstance(form, ActivationForm)}
#: The forms that add in another order. All others give exactly the numbers of the plain form.
SUMS = {"litert, split", "litert, convolution"}
ACTIVATIONS = ("", "relu", "relu6", "h_swish")


def onnx_output(data: bytes, x: np.ndarray) -> np.ndarray:
    (value,) = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"input": x})
    return value


def litert_output(data: bytes, x: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x.transpose(0, 2, 3, 1))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).transpose(0, 3, 1, 2)


RUN = {"onnxruntime": onnx_output, "litert": litert_output}


def torch_output(graph: Graph, weights, x: np.ndarray) -> np.ndarray:
    module = GraphModule(graph).eval()
    load_weights(module, weights)
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def depthwise(draw: st.DrawFn, channels: int) -> Layer:
    has_bn = draw(st.booleans())
    return Conv(
        "layer",
        channels,
        channels,
        7,
        draw(st.integers(1, 3)),
        channels,
        bias=draw(st.booleans()),
        batch_norm=has_bn,
        activation=draw(st.sampled_from(ACTIVATIONS)),
    )


#: Layer type -> a layer of this type with that many channels, to which the forms apply.
LAYERS = {
    Conv: depthwise,
    AvgPool: lambda _draw, _channels: AvgPool("layer"),
    MaxPool: lambda _draw, _channels: MaxPool("layer", nonnegative=True),
    SqueezeExcite: lambda draw, channels: SqueezeExcite("layer", channels, draw(st.integers(1, 12))),
}


@st.composite
def cases(draw: st.DrawFn, layer_type: type[Layer]):
    """A graph with the layer between others, its weights, a batch and an input."""
    channels, size = draw(st.integers(2, 20)), (draw(st.integers(1, 17)), draw(st.integers(1, 17)))
    layer = LAYERS[layer_type](draw, channels)
    before = (
        [Conv("before", channels, channels, activation="relu")] if draw(st.booleans()) or layer_type is MaxPool else []
    )
    after = [Conv("after", channels, 3)] if draw(st.booleans()) else []
    if layer_type is AvgPool:
        size = tuple(n + n % 2 for n in size)  # odd maps have no other form
    if layer_type is MaxPool:
        size = tuple(max(2, n) for n in size)  # mirrored padding needs two pixels
    graph = Graph.chain([*before, layer, *after], (*size, channels))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.standard_normal((draw(st.integers(1, 3)), channels, *size)).astype(np.float32)
    return graph, random_weights(graph, rng), x


@pytest.mark.parametrize("name", FORMS)
def test_a_form_computes_what_the_plain_form_and_torch_compute(name):
    form = FORMS[name]

    @settings(max_examples=60, deadline=None)
    @given(cases(form.layer))
    def check(case):
        graph, weights, x = case
        to_plain, to_torch = compare(form, graph, weights, x)
        assert to_plain <= (1e-5 if name in SUMS else 0)
        assert to_torch <= 1e-5

    check()


@pytest.mark.parametrize("name", ACTIVATION_FORMS)
def test_an_activation_in_another_form_is_the_same_function(name):
    form = ACTIVATION_FORMS[name]

    @settings(max_examples=30, deadline=None)
    @given(cases(Conv))
    def check(case):
        graph, weights, x = case
        nodes = [n._replace(layer=replace(n.layer, activation=form.activation)) for n in graph.nodes]
        assert max(compare(form, replace(graph, nodes=tuple(nodes)), weights, x)) <= 1e-5

    check()


def compare(form: AnyForm, graph: Graph, weights, x: np.ndarray) -> list[float]:
    """The largest differences to the plain form and to torch, relative to the largest output."""
    target = Target(form.runtime, batch=len(x))
    (layer,) = (node.layer for node in graph.nodes if node.name == "layer")
    group = form.group_of(layer)
    assert group is not None
    forms = Forms({group: form.name})
    exporter = get_exporter(target)
    plain, written = (
        exporter.build(graph, weights, target, outputs=["output"], metadata={}, forms=chosen)
        for chosen in (PLAIN, forms)
    )
    assert plain != written
    got = RUN[form.runtime](written, x)
    assert got.shape == (len(x), *np.roll(graph.shapes[graph.outputs[0]], 1))
    scale = max(float(np.abs(got).max()), 1e-3)
    others = RUN[form.runtime](plain, x), torch_output(graph, weights, x)
    return [float(np.abs(got - other).max()) / scale for other in others]


def test_the_comparison_notices_a_wrong_form(monkeypatch):
    """The parts of the split kernel with one tap missing, one twice, and in the wrong place."""
    graph = Graph.chain([Conv("layer", 4, 4, 7, 1, 4)], (9, 9, 4))
    rng = np.random.default_rng(0)
    weights, x = random_weights(graph, rng), rng.standard_normal((1, 4, 9, 9)).astype(np.float32)
    form = FORMS["litert, split"]
    assert max(compare(form, graph, weights, x)) < 1e-6
    right = depthwise_split.PARTS
    for wrong in ((slice(0, 7, 2), slice(0, 1, 1)), (slice(0, 7, 2), slice(0, 7, 3)), (slice(0, 7, 6), slice(0, 7, 6))):
        monkeypatch.setattr(depthwise_split, "PARTS", (*right[:2], wrong))
        assert min(compare(form, graph, weights, x)) > 1e-2


def test_the_parts_of_the_split_have_each_tap_once():
    counts = np.zeros((7, 7), int)
    for rows, columns in depthwise_split.PARTS:
        counts[rows, columns] += 1
        assert (columns.stop - 1 + columns.start, rows.stop - 1 + rows.start) == (6, 6)  # the same centre
        assert counts[rows, columns].size <= 25
    assert (counts == 1).all()


# --- what is written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", space_names())
@pytest.mark.parametrize("runtime", RUN)
def test_networks_are_the_same_function_in_all_forms(space, runtime, tmp_path):
    space = get_space(space)
    small = min(space.resolutions)
    architecture = space.at(small).sample(np.random.default_rng(3))
    graph = Graph.joined((slot, op.graph) for slot, op in space.layout(architecture))
    fast = Forms({group: names[0] for group, names in candidates(Target(runtime), graph).items()})
    weights = random_weights(graph, np.random.default_rng(0))
    outputs = []
    x = np.random.default_rng(1).standard_normal((1, 3, small, small)).astype(np.float32)
    for forms in (PLAIN, fast):
        path = tmp_path / f"{forms.name}.model"
        export_network(space, architecture, weights, path, Target(runtime), metadata={}, forms=forms)
        if runtime == "litert":
            interpreter = Interpreter(model_path=str(path))
            interpreter.allocate_tensors()
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x.transpose(0, 2, 3, 1))
            interpreter.invoke()
            outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).ravel())
        else:
            outputs.append(onnx_output(path.read_bytes(), x).ravel())
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=0, atol=1e-5 * np.abs(outputs[0]).max())


def operators(data: bytes) -> list[str]:
    """The operators of a TFLite model, in order."""
    model = tflite.Model.GetRootAs(data)
    graph = model.Subgraphs(0)
    codes = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
    return [
        codes[model.OperatorCodes(graph.Operators(i).OpcodeIndex()).BuiltinCode()]
        for i in range(graph.OperatorsLength())
    ]


def test_ops_are_exported_in_all_their_forms(tmp_path):
    space = get_space("cifar-mbv3")
    ops = [op for op in space.unique_ops() if op.attributes.get("kernel_size") == 7][:2]
    models = export_ops(ops, Target("litert"), with_variants=True, cache_dir=tmp_path)
    again = export_ops(ops, Target("litert"), with_variants=True, cache_dir=tmp_path)
    for op, model, same in zip(ops, models, again, strict=True):
        assert list(model.variants) == combinations(Target("litert"), op.graph)
        (variant,) = model.variants.values()
        assert "ADD" in operators(variant.path.read_bytes())
        assert operators(variant.path.read_bytes()).count("DEPTHWISE_CONV_2D") == 3
        assert operators(model.path.read_bytes()).count("DEPTHWISE_CONV_2D") == 1
        assert variant.inputs == model.inputs
        assert same.variants == model.variants
    plain = export_ops(ops, Target("litert"), cache_dir=tmp_path)
    assert [(model.path, model.variants) for model in plain] == [(model.path, {}) for model in models]


def test_the_wide_gate_keeps_opset_and_file_version(tmp_path):
    op = next(op for op in get_space("cifar-mbv3").unique_ops() if op.attributes.get("se"))
    (model,) = export_ops([op], Target(), with_variants=True, cache_dir=tmp_path)
    (variant,) = model.variants.values()
    one, other = (onnx.load(file.path) for file in (model, variant))
    onnx.checker.check_model(other, full_check=True)
    assert (one.ir_version, one.opset_import) == (other.ir_version, other.opset_import)
    assert "Resize" in {node.op_type for node in other.graph.node} - {node.op_type for node in one.graph.node}


@pytest.mark.parametrize("release", ["1.2.0", "1.3.0", "1.6.0", "1.8.0", "1.11.0"])
def test_the_wide_gate_exists_in_old_opsets(release, tmp_path):
    op = next(op for op in get_space("cifar-mbv3").unique_ops() if op.attributes.get("se"))
    (model,) = export_ops([op], Target(), release=release, with_variants=True, cache_dir=tmp_path)
    (variant,) = model.variants.values()
    onnx.checker.check_model(onnx.load(variant.path), full_check=True)
    x = np.random.default_rng(0).standard_normal(model.inputs[0].shape).astype(np.float32)
    plain, wide = (onnx_output(file.path.read_bytes(), x) for file in (model, variant))
    np.testing.assert_array_equal(plain, wide)


def test_max_pooling_of_negative_values_has_no_form():
    graph = Graph.chain([MaxPool("pool")], (8, 8, 4))
    assert candidates(Target("litert"), graph) == {}
    assert combinations(Target("litert"), graph) == []


def test_unknown_and_repeated_forms_are_refused(tmp_path, monkeypatch):
    space = get_space("cifar-mbv3")
    architecture = space.sample(np.random.default_rng(0))
    weights = random_weights(space.layout(architecture), np.random.default_rng(0))
    with pytest.raises(UsageError, match="unknown form 'of-tomorrow' of 'depthwise 7x7, stride 1' for litert"):
        export_network(
            space,
            architecture,
            weights,
            tmp_path / "net.tflite",
            Target("litert"),
            metadata={},
            forms=Forms({"depthwise 7x7, stride 1": "of-tomorrow"}),
        )
    with pytest.raises(UsageError, match="the form 'saturating_gate' of 'squeeze-excite' is for int8, not for fp32"):
        export_network(
            space,
            architecture,
            weights,
            tmp_path / "net.tflite",
            Target("litert"),
            metadata={},
            forms=Forms({"squeeze-excite": "saturating_gate"}),
        )
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(base, "_FORMS", list(base._FORMS))
    with pytest.raises(UsageError, match="litert already has the form 'split'"):
        register_form(FORMS["litert, split"])
