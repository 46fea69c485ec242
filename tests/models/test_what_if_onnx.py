"""Edited ONNX files: activations are recognized however they are spelled, and an edit changes what it should."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from ofa_profiler import get_space
from ofa_profiler.errors import UsageError
from ofa_profiler.export import export_network
from ofa_profiler.models.base import Array, Feed, TimedModel
from ofa_profiler.models.what_if.variants import MAX_VARIANTS, Variant, what_if
from ofa_profiler.networks.made_up_weights import repeating_weights
from ofa_profiler.protocol.target import Target

#: A node, or a constant.
Node = onnx.NodeProto | tuple[str, Any]


def opened(data: bytes, feeds: Mapping[str, Array], runtime: str = "onnxruntime") -> Any:
    """As much of a user's model as is asked for."""
    whole = TimedModel(data, tuple(Feed.exact(name, values) for name, values in feeds.items()))
    return SimpleNamespace(runtime=runtime, whole=lambda _: whole)


def file_of(nodes: list[Node], shape: tuple[int, ...], opset: int = 20) -> bytes:
    """A file with the input `x` and the output `y`. Constants are initializers and Constant nodes in turn."""
    constants = [(name, np.asarray(values)) for name, values in (n for n in nodes if isinstance(n, tuple))]
    tensors = [numpy_helper.from_array(values, name) for name, values in constants]
    made = [helper.make_node("Constant", [], [each.name], value=each) for each in tensors[1::2]]
    graph = helper.make_graph(
        [*made, *(n for n in nodes if not isinstance(n, tuple))],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        tensors[::2],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(model.SerializeToString())


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), f"/net/{outputs}/{kind}", **attributes)


def run(data: bytes, feeds: Mapping[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(feeds))[0])


def kinds(data: bytes) -> list[str]:
    return [each.op_type for each in onnx.load_from_string(data).graph.node if each.op_type != "Constant"]


def variants(data: bytes, shape: tuple[int, ...], seed: int = 0) -> tuple[dict[str, Array], tuple[Variant, ...]]:
    feeds = {"x": np.random.default_rng(seed).normal(size=shape).astype(np.float32) * 3}
    return feeds, what_if(opened(data, feeds), feeds).variants


def scalar(name: str, value: float) -> tuple[str, Any]:
    return name, np.float32(value)


SPELLINGS: dict[str, tuple[str, list[Node]]] = {
    "operator": ("hard-swish", [node("HardSwish", "x", "y")]),
    "hard-sigmoid": ("hard-swish", [node("HardSigmoid", "x", "a", alpha=1 / 6), node("Mul", "x a", "y")]),
    "add, clip, mul, div": (
        "hard-swish",
        [
            *(scalar("three", 3), scalar("zero", 0), scalar("six", 6)),
            *(node("Add", "x three", "a"), node("Clip", "a zero six", "b")),
            *(node("Mul", "b x", "c"), node("Div", "c six", "y")),
        ],
    ),
    "add, clip, div, mul": (
        "hard-swish",
        [
            *(scalar("three", 3), scalar("zero", 0), scalar("six", 6)),
            *(node("Add", "three x", "a"), node("Clip", "a zero six", "b")),
            *(node("Div", "b six", "c"), node("Mul", "x c", "y")),
        ],
    ),
    "add, clip, mul, mul": (
        "hard-swish",
        [
            *(scalar("three", 3), scalar("zero", 0), scalar("six", 6), scalar("sixth", 1 / 6)),
            *(node("Add", "x three", "a"), node("Clip", "a zero six", "b")),
            *(node("Mul", "x sixth", "c"), node("Mul", "c b", "y")),
        ],
    ),
    "sigmoid": ("swish", [node("Sigmoid", "x", "a"), node("Mul", "x a", "y")]),
    "gelu": ("gelu", [node("Gelu", "x", "y")]),
    "tanh gelu": ("gelu", [node("Gelu", "x", "y", approximate="tanh")]),
    "erf": (
        "gelu",
        [
            *(scalar("root", 2**0.5), scalar("one", 1), scalar("half", 0.5)),
            *(node("Div", "x root", "a"), node("Erf", "a", "b"), node("Add", "b one", "c")),
            *(node("Mul", "x c", "d"), node("Mul", "d half", "y")),
        ],
    ),
    "softplus": ("mish", [node("Softplus", "x", "a"), node("Tanh", "a", "b"), node("Mul", "x b", "y")]),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_activations_become_relu(name: str) -> None:
    function, nodes = SPELLINGS[name]
    feeds, (variant,) = variants(file_of(nodes, (2, 3)), (2, 3))
    assert variant.label == f"{function} -> ReLU in {nodes[-1].name}"  # type: ignore[union-attr]
    assert kinds(variant.model.data) == ["Relu"]
    np.testing.assert_array_equal(run(variant.model.data, feeds), np.maximum(feeds["x"], 0))
    assert not onnx.load_from_string(variant.model.data).graph.initializer


def test_clip_with_attributes() -> None:
    """Opset 10, as old exporters write it."""
    constants = [scalar("three", 3), scalar("unused", 1), scalar("six", 6)]
    nodes = [node("Add", "x three", "a"), node("Clip", "a", "b", min=0.0, max=6.0)]
    nodes += [node("Mul", "x b", "c"), node("Div", "c six", "y")]
    _, (variant,) = variants(file_of([*constants, *nodes], (2, 3), opset=10), (2, 3))
    assert kinds(variant.model.data) == ["Relu"]


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([node("Relu", "x", "y")], id="another function"),
        pytest.param([node("Sigmoid", "x", "a"), node("Mul", "a a", "y")], id="another product"),
        pytest.param([node("ReduceMean", "x", "m"), node("Sigmoid", "m", "a"), node("Mul", "x a", "y")], id="a gate"),
        pytest.param(
            [node("Sigmoid", "x", "a"), node("Mul", "x a", "b"), node("Add", "a b", "y")], id="used elsewhere"
        ),
        pytest.param([node("HardSigmoid", "x", "a"), node("Mul", "x a", "y")], id="other constants"),
    ],
)
def test_what_is_no_such_activation_stays(nodes: list[Node]) -> None:
    assert variants(file_of(nodes, (2, 3)), (2, 3))[1] == ()


@given(st.sampled_from(sorted(SPELLINGS)), st.integers(1, 3), st.integers(1, 4))
def test_equal_activations_are_one_change(name: str, count: int, width: int) -> None:
    chain: list[Node] = []
    for i in range(count):
        for each in SPELLINGS[name][1]:
            if isinstance(each, tuple):
                chain.append((f"{each[0]}{i}", each[1]))
                continue
            copy = onnx.NodeProto()
            copy.CopyFrom(each)
            names = {"x": "x" if not i else f"y{i - 1}", "y": "y" if i == count - 1 else f"y{i}"}
            copy.input[:] = [names.get(one, f"{one}{i}") for one in each.input]
            copy.output[:] = [names.get(one, f"{one}{i}") for one in each.output]
            copy.name = f"{each.name}{i}"
            chain.append(copy)
    _, found = variants(file_of(chain, (1, width)), (1, width))
    assert [len(variant.places) for variant in found] == [count]
    assert kinds(found[0].model.data) == ["Relu"] * count


@pytest.mark.parametrize(
    ("size", "dilation", "auto"), [(5, 1, False), (7, 1, False), (5, 2, False), (5, 1, True), (7, 1, True)]
)
def test_kernels_lose_a_border(size: int, dilation: int, auto: bool) -> None:
    weights = np.zeros((6, 1, size, size), np.float32)
    weights[:, :, 1:-1, 1:-1] = np.random.default_rng(0).normal(size=(6, 1, size - 2, size - 2))
    pad = dilation * (size // 2)
    padding: dict[str, Any] = {"auto_pad": "SAME_UPPER"} if auto else {"pads": [pad] * 4}
    conv = node("Conv", "x w", "y", group=6, kernel_shape=[size] * 2, dilations=[dilation] * 2, **padding)
    data = file_of([("w", weights), conv], (1, 6, 17, 13))
    feeds, (variant,) = variants(data, (1, 6, 17, 13))
    assert variant.label == f"depthwise kernel {size} -> {size - 2} in /net/y/Conv"
    np.testing.assert_allclose(run(variant.model.data, feeds), run(data, feeds), atol=1e-4)
    (changed,) = onnx.load_from_string(variant.model.data).graph.initializer
    assert list(changed.dims) == [6, 1, size - 2, size - 2]


@pytest.mark.parametrize("pads", [[0] * 4, [1, 1, 0, 1]])
def test_kernels_without_padding_stay(pads: list[int]) -> None:
    conv = node("Conv", "x w", "y", group=6, pads=pads)
    data = file_of([("w", np.ones((6, 1, 5, 5), np.float32)), conv], (1, 6, 9, 9))
    assert variants(data, (1, 6, 9, 9))[1] == ()


def test_channels_change_together() -> None:
    """A residual block with squeeze-and-excite of 10 and 5 channels: inputs and outputs of the network stay."""
    rng = np.random.default_rng(0)
    shapes = {"w0": (10, 3, 3, 3), "b0": (10,), "d": (10, 1, 3, 3), "s": (5, 10, 1, 1), "e": (10, 5, 1, 1)}
    shapes |= {"gamma": (10,), "beta": (10,), "mean": (10,), "var": (10,), "fc": (10, 7), "bias": (7,)}
    weights: list[Node] = [(name, rng.uniform(0.1, 1, shape).astype(np.float32)) for name, shape in shapes.items()]
    nodes = [
        node("Conv", "x w0 b0", "a", pads=[1] * 4),
        node("BatchNormalization", "a gamma beta mean var", "b"),
        node("Conv", "b d", "c", pads=[1] * 4, group=10),
        node("GlobalAveragePool", "c", "g"),
        node("Conv", "g s", "h"),
        node("Relu", "h", "i"),
        node("Conv", "i e", "j"),
        node("Sigmoid", "j", "k"),
        node("Mul", "c k", "l"),
        node("Add", "l a", "m"),
        node("GlobalAveragePool", "m", "n"),
        node("Flatten", "n", "o"),
        node("Gemm", "o fc bias", "y"),
    ]
    feeds, found = variants(file_of([*weights, *nodes], (1, 3, 8, 8)), (1, 3, 8, 8))
    by_label = {variant.label: variant.model.data for variant in found}
    assert set(by_label) == {"10 -> 16 channels in /net/a/Conv", "5 -> 8 channels in /net/h/Conv"}
    wide = {t.name: tuple(t.dims) for t in initializers(by_label["10 -> 16 channels in /net/a/Conv"])}
    assert wide == {name: tuple(16 if n == 10 else n for n in shape) for name, shape in shapes.items()}
    assert run(by_label["10 -> 16 channels in /net/a/Conv"], feeds).shape == (1, 7)
    squeezed = {t.name: tuple(t.dims) for t in initializers(by_label["5 -> 8 channels in /net/h/Conv"])}
    assert (squeezed["s"], squeezed["e"], squeezed["w0"]) == ((8, 10, 1, 1), (10, 8, 1, 1), (10, 3, 3, 3))


def initializers(data: bytes) -> list[onnx.TensorProto]:
    return list(onnx.load_from_string(data).graph.initializer)


def test_channels_that_a_reshape_names_stay() -> None:
    weights = np.ones((10, 3, 1, 1), np.float32)
    nodes = [node("Conv", "x w", "a"), node("Reshape", "a shape", "y")]
    data = file_of([("w", weights), ("shape", np.array([1, 5, 2, 16])), *nodes], (1, 3, 4, 4))
    assert variants(data, (1, 3, 4, 4))[1] == ()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_network_of_ours(tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if precision == "int8":
        monkeypatch.setattr("ofa_profiler.models.what_if.variants.MAX_VARIANTS", 6)
    space = get_space("cifar-mbv3")
    target = Target("onnxruntime", precision)
    path = export_network(
        space, space.largest, repeating_weights(space.layout(space.largest)), tmp_path / "n.onnx", target, metadata={}
    )
    data, x = path.read_bytes(), np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    name = onnx.load_from_string(data).graph.input[0].name
    found = what_if(opened(data, {name: x}), {name: x})
    assert path.read_bytes() == data
    assert len(found.variants) <= MAX_VARIANTS
    changes = {variant.label.split(" in ")[0].split(" at ")[0] for variant in found.variants}
    assert "depthwise kernel 7 -> 5" in changes
    if precision == "fp32":
        assert "hard-swish -> ReLU" in changes
    shape = run(data, {name: x}).shape
    assert all(run(variant.model.data, {name: x}).shape == shape for variant in found.variants)
    assert [variant.key for variant in found.variants] == [f"what-if-{i + 1}" for i in range(len(found.variants))]


def test_too_many_changes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofa_profiler.models.what_if.variants.MAX_VARIANTS", 1)
    nodes = [node("HardSwish", "x", "a"), node("ReduceMean", "a", "b"), node("Gelu", "b", "y")]
    feeds = {"x": np.ones((2, 3), np.float32)}
    found = what_if(opened(file_of(list(nodes), (2, 3)), feeds), feeds)
    assert [variant.label for variant in found.variants] == ["hard-swish -> ReLU in /net/a/HardSwish"]
    assert found.untried == ("gelu -> ReLU in /net/y/Gelu",)


def test_models_of_another_runtime_are_refused() -> None:
    with pytest.raises(UsageError, match="--what-if cannot edit models of torch"):
        what_if(opened(b"", {}, "torch"), {})
