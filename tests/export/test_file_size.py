"""The bytes of model files as a sum over ops: how exact it is, for all spaces, runtimes and precisions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ofa_profiler import get_space
from ofa_profiler.export import export_network
from ofa_profiler.export.file_size import file_bytes
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.protocol.forms import Forms, MixedForms
from ofa_profiler.protocol.target import Target

#: The fast forms on x86, by runtime and precision.
FORMS = {
    ("litert", "fp32"): {"depthwise 7x7, stride 1": "split", "depthwise 7x7, stride 2": "split"},
    ("litert", "int8"): {"activation h_swish": "arithmetic", "depthwise 7x7, stride 1": "split"},
    ("onnxruntime", "int8"): {"activation h_swish": "hard_sigmoid"},
}
METADATA = {"space": "any", "labels": '["cat", "dog"]' * 40}
#: The sum may be above the bytes by this much: networks of TFLite share constants and align weights.
ABOVE = {"onnxruntime": 500, "litert": 1200}


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(
    ("name", "networks"),
    [
        ("cifar-mbv3", 12),
        pytest.param("ofa-mbv3-w1.2", 12, marks=pytest.mark.slow),
        pytest.param("ofa-proxyless-w1.3", 12, marks=pytest.mark.slow),
        pytest.param("ofa-resnet50", 6, marks=pytest.mark.long),
    ],
)
def test_no_file_is_larger_and_the_sum_is_close(
    tmp_path: Path, name: str, networks: int, precision: str, runtime: str
) -> None:
    space, target = get_space(name), Target(runtime, precision)
    forms = Forms(FORMS.get((runtime, precision), {}))
    if name == "ofa-resnet50":  # it has none of these layers
        forms = Forms({})
    says = {"precision": "int8", "ranges": "made up"} if precision == "int8" else {}
    cost = file_bytes(space, target, forms, {**METADATA, **says})
    rng = np.random.default_rng(7)
    genomes = space.sample_genomes(rng, networks)
    for architecture, predicted in zip(space.decode(genomes), cost.evaluate(genomes).tolist(), strict=True):
        weights = random_weights(space.layout(architecture), rng)
        path = export_network(space, architecture, weights, tmp_path / "net", target, metadata=METADATA, forms=forms)
        assert 0 <= predicted - path.stat().st_size <= ABOVE[runtime]


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
@pytest.mark.parametrize(
    "name",
    [
        "cifar-mbv3",
        pytest.param("ofa-proxyless-w1.3", marks=pytest.mark.slow),
        pytest.param("ofa-resnet50", marks=pytest.mark.long),
    ],
)
def test_the_sum_is_close_in_mixed_precision(tmp_path: Path, name: str, runtime: str) -> None:
    space, target = get_space(f"{name}-mixed"), Target(runtime, "mixed")
    chosen = {precision: Forms(FORMS.get((runtime, precision), {})) for precision in ("fp32", "int8")}
    forms = MixedForms() if name == "ofa-resnet50" else MixedForms(**chosen)
    precisions = json.dumps(dict.fromkeys((slot.name for slot in space.slots), "int8"))
    says = {"precision": "mixed", "ranges": "made up", "precisions": precisions}
    cost = file_bytes(space, target, forms, {**METADATA, **says})
    rng = np.random.default_rng(7)
    genomes = space.sample_genomes(rng, 8)
    for architecture, predicted in zip(space.decode(genomes), cost.evaluate(genomes).tolist(), strict=True):
        weights = random_weights(space.layout(architecture), rng)
        path = export_network(space, architecture, weights, tmp_path / "net", target, metadata=METADATA, forms=forms)
        assert 0 <= predicted - path.stat().st_size <= 0.003 * predicted


def test_the_range_is_exact() -> None:
    space = get_space("cifar-mbv3")
    cost = file_bytes(space, Target("onnxruntime"))
    genomes = np.vstack(
        [space.encode([space.smallest, space.largest]), space.sample_genomes(np.random.default_rng(0), 500)]
    )
    sizes = cost.evaluate(genomes)
    assert cost.minimum()[0] == sizes.min() == sizes[0]
    assert cost.maximum()[0] == sizes.max() == sizes[1]


def test_classes_and_metadata_count() -> None:
    space = get_space("cifar-mbv3")
    genome = space.encode([space.smallest])
    few, many = (file_bytes(space.with_classes(n), Target("onnxruntime")).evaluate(genome)[0] for n in (10, 110))
    (features,) = {op.input_shape[-1] for op in space.slot_ops(space.slots[-1])}
    assert many - few == pytest.approx(100 * 4 * (features + 1), abs=20)
    longer = file_bytes(space, Target("onnxruntime"), metadata={"text": "x" * 5000}).evaluate(genome)[0]
    assert longer - few == pytest.approx(5000, abs=40)
