"""Models for an old onnxruntime: at the opset that it knows, and they compute the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from ofa_profiler.errors import UsageError
from ofa_profiler.export import export_ops, get_exporter
from ofa_profiler.networks.graph import Graph
from ofa_profiler.networks.layers import Gelu, LayerNorm, SelfAttention
from ofa_profiler.protocol.target import DEFAULT_TARGET
from ofa_profiler.spaces import get_space

#: Release -> opset and file version, measured with the wheels of these releases.
KNOWN = {"1.2.0": (11, 6), "1.5.2": (12, 7), "1.7.0": (13, 7), "1.8.1": (14, 7), "1.10.0": (15, 8), "1.11.1": (16, 8)}
CURRENT = ("1.12.0", "1.13.1", "1.31.1", "2.0", None, "fake")


def graphs() -> dict[str, Graph]:
    """One op of every kind of the spaces, and what transformers are made of, in small."""
    found: dict[str, Graph] = {}
    for name in ("cifar-mbv3", "ofa-proxyless-w1.3", "ofa-resnet50"):
        for op in get_space(name).with_resolutions([32 if name == "cifar-mbv3" else 128]).unique_ops():
            if f"{name} {op.kind}" not in found:
                found[f"{name} {op.kind}"] = op.graph
    layers = (LayerNorm("norm", 24, 1e-3), SelfAttention("attention", 24, 4), Gelu("gelu"))
    return {**found, "transformer": Graph.chain(layers, (7, 24))}


GRAPHS = graphs()


def weights(graph: Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: np.abs(rng.normal(size=shape)).astype(np.float32) / 3 + 0.01
        for name, shape in graph.parameter_shapes.items()
    }


def built(graph: Graph, release: str | None) -> onnx.ModelProto:
    exporter = get_exporter(DEFAULT_TARGET, release)
    data = exporter.build(graph, weights(graph), DEFAULT_TARGET, outputs=["output"], metadata={})
    return onnx.load_from_string(data)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_op_computes_the_same_at_every_opset(name):
    graph = GRAPHS[name]
    (tensor,) = get_exporter(DEFAULT_TARGET).inputs(graph, DEFAULT_TARGET)
    values = {tensor.name: np.random.default_rng(1).normal(size=tensor.shape).astype(np.float32)}
    current = built(graph, None)
    (expected,) = ReferenceEvaluator(current).run(None, values)
    done = {current.opset_import[0].version}
    for release, (opset, ir_version) in KNOWN.items():
        model = built(graph, release)
        assert (model.opset_import[0].version, model.ir_version) == (opset, ir_version)
        onnx.checker.check_model(model, full_check=True)
        if {node.op_type for node in model.graph.node} != {node.op_type for node in current.graph.node} or opset == 11:
            (found,) = ReferenceEvaluator(model).run(None, values)
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        done.add(opset)
    assert len(done) == 7


def test_a_current_release_gets_the_usual_models(tmp_path):
    op = get_space("cifar-mbv3").with_resolutions([24]).unique_ops()[1]
    (usual,) = export_ops([op], cache_dir=tmp_path)
    for release in CURRENT:
        assert export_ops([op], release=release, cache_dir=tmp_path) == [usual]
    (old,) = export_ops([op], release="1.11.1", cache_dir=tmp_path)
    assert old.sha256 != usual.sha256
    assert export_ops([op], release="1.11.0", cache_dir=tmp_path) == [old], "from the cache: the opset is the same"
    assert len(list(tmp_path.rglob("*.onnx"))) == 2


def test_a_release_without_an_opset_for_the_models_is_one_line():
    with pytest.raises(UsageError, match=r"onnxruntime 1\.1\.2 is too old: .* opset 11, onnxruntime 1\.2 or newer"):
        get_exporter(DEFAULT_TARGET, "1.1.2")
