"""Networks of mixed precision: int8 and float32 slots in one file, for both runtimes."""

from __future__ import annotations

import json
from itertools import groupby

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tflite_files
from support.int8 import calibrated, fast_forms, images, snr_db

from ofa_profiler import get_space, space_names
from ofa_profiler.errors import UsageError
from ofa_profiler.export import export_network, export_ops
from ofa_profiler.networks.blocks import as_graph
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_profiler.protocol.forms import PLAIN, MixedForms
from ofa_profiler.protocol.target import Target

ENCODINGS = {"litert": "", "onnxruntime": "u8s8"}
RUNTIMES = tuple(ENCODINGS)


class Subject:
    """A random network of a space at its smallest resolution, in any precisions of its slots."""

    def __init__(self, space_name: str, seed: int) -> None:
        plain = get_space(space_name)
        self.space = get_space(f"{space_name}-mixed").at(min(plain.resolutions))
        self.architecture = self.space.sample(np.random.default_rng(seed))
        self.graph = as_graph(self.space.layout(self.architecture))
        self.weights = random_weights(self.graph, np.random.default_rng(seed))
        self.ranges = calibrated(self.graph, self.weights)

    def export(self, folder, runtime, precision="mixed", bits=None, fast=True):
        """The file, all of whose forms are fast."""
        target = Target(runtime, precision, encoding=ENCODINGS[runtime] if precision != "fp32" else "")
        forms = {p: fast_forms(Target(runtime, p), self.graph) if fast else PLAIN for p in ("fp32", "int8")}
        plain = self.space.plain_architecture(self.architecture)
        mixed = self.space.with_bits(plain, self.architecture.bits if bits is None else bits)
        return export_network(
            *((self.space, mixed) if precision == "mixed" else (self.space.plain, plain)),
            self.weights,
            folder / f"net.{'tflite' if runtime == 'litert' else 'onnx'}",
            target,
            metadata={},
            forms=MixedForms(**forms) if precision == "mixed" else forms[precision],
            ranges=self.ranges if precision != "fp32" else None,
        )


def run(path, x):
    if path.suffix == ".tflite":
        return tflite_files.run(path.read_bytes(), x.transpose(0, 2, 3, 1))
    from onnxruntime import InferenceSession

    return np.concatenate([InferenceSession(path).run(None, {"input": image[np.newaxis]})[0] for image in x])


def operators(path):
    if path.suffix == ".tflite":
        return [node.name for node in tflite_files.operators(path.read_bytes())]
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    "space", [pytest.param(n, marks=[pytest.mark.slow] * (n != "cifar-mbv3")) for n in space_names()]
)
def test_a_mixed_network_computes_what_the_float_one_does(space, runtime, tmp_path):
    subject = Subject(space, seed=3)
    x = images(subject.graph, 4, seed=1)
    expected = run(subject.export(tmp_path, runtime, "fp32"), x)
    integer_db = snr_db(expected, run(subject.export(tmp_path, runtime, "int8"), x))
    mixed_db = snr_db(expected, run(subject.export(tmp_path, runtime), x))
    # Fewer integers are less noise, but the noise of one network is a matter of chance.
    assert mixed_db > integer_db - 1.5 > 15


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_precision_changes_only_between_runs(runtime, tmp_path):
    subject = Subject("cifar-mbv3", seed=4)
    slots = len(subject.architecture.bits)
    for bits in (
        ((8, 32) * slots)[:slots],
        (32,) * (slots - 1) + (8,),
        (8,) * (slots // 2) + (32,) * (slots - slots // 2),
    ):
        runs = [key for key, _ in groupby(bits)].count(8)
        found = operators(subject.export(tmp_path, runtime, bits=bits))
        if runtime == "litert":
            assert (found.count("QUANTIZE"), found.count("DEQUANTIZE")) == (runs, runs)
        assert ("CONV_2D" in found) or ("Conv" in found)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("bits", "precision"), [(8, "int8"), (32, "fp32")])
def test_one_precision_is_a_special_case(bits, precision, runtime, tmp_path):
    subject = Subject("cifar-mbv3", seed=5)
    (tmp_path / "pure").mkdir()
    pure = subject.export(tmp_path / "pure", runtime, precision)
    mixed = subject.export(tmp_path, runtime, bits=(bits,) * len(subject.architecture.bits))
    assert operators(pure) == operators(mixed)
    x = images(subject.graph, 2, seed=0)
    np.testing.assert_array_equal(run(pure, x), run(mixed, x))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), fast=st.booleans(), runtime=st.sampled_from(RUNTIMES))
def test_every_choice_of_bits_runs(seed, fast, runtime, tmp_path_factory):
    subject = Subject("cifar-mbv3", seed=6)
    bits = np.random.default_rng(seed).choice([8, 32], len(subject.architecture.bits)).tolist()
    path = subject.export(tmp_path_factory.mktemp("mixed"), runtime, bits=bits, fast=fast)
    assert np.isfinite(run(path, images(subject.graph, 1, seed=2))).all()


def optimised(path) -> list[onnx.NodeProto]:
    """The nodes that onnxruntime runs."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path.with_suffix(".run.onnx")), 3
    InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return list(onnx.load(options.optimized_model_filepath).graph.node)


@pytest.mark.parametrize("name", ["ofa-resnet50", "ofa-proxyless-w1.3"])
def test_onnxruntime_runs_float_slots_between_int8_slots_in_float(name, tmp_path):
    """Left alone, it would quantize a convolution there itself, with one scale for channels of any size."""
    subject = Subject(name, seed=3)
    slots = [slot for slot, _ in subject.space.layout(subject.architecture)]
    alone = [i for i, (_, op) in enumerate(subject.space.layout(subject.architecture)) if len(op.graph.nodes) == 1]
    for number in (i for i in alone if 0 < i < len(slots) - 1):
        bits = [8] * len(slots)
        bits[number] = 32
        nodes = optimised(subject.export(tmp_path, "onnxruntime", bits=bits))
        mine = [node.op_type for node in nodes if any(f"{slots[number]}." in text for text in node.output)]
        assert mine
        # The largest of some values is the same before and after quantization.
        assert not [op for op in mine if op.startswith("QLinear")], slots[number]


def test_a_float_slot_with_a_channel_of_large_weights_is_exact(tmp_path):
    subject = Subject("ofa-proxyless-w1.3", seed=3)
    subject.weights = dict(subject.weights)
    scales = subject.weights["feature_mix.conv.bn.weight"].copy()
    scales[0] *= 300  # its output saturates at 6, but a common scale of all weights would be useless for the others
    subject.weights["feature_mix.conv.bn.weight"] = scales
    subject.ranges = calibrated(subject.graph, subject.weights)
    slots = [slot for slot, _ in subject.space.layout(subject.architecture)]
    bits = [32 if slot == "feature_mix" else 8 for slot in slots]
    x = images(subject.graph, 4, seed=1)
    expected = run(subject.export(tmp_path, "onnxruntime", "fp32"), x)
    integer_db = snr_db(expected, run(subject.export(tmp_path, "onnxruntime", "int8"), x))
    assert snr_db(expected, run(subject.export(tmp_path, "onnxruntime", bits=bits), x)) > integer_db - 1.5


def test_one_partition_in_litert(tmp_path):
    subject = Subject("cifar-mbv3", seed=7)
    path = subject.export(tmp_path, "litert")
    assert tflite_files.partitions(path.read_bytes()) == 1


def test_the_file_says_the_precision_of_each_slot(tmp_path):
    subject = Subject("cifar-mbv3", seed=8)
    stored = {entry.key: entry.value for entry in onnx.load(subject.export(tmp_path, "onnxruntime")).metadata_props}
    assert stored["precision"] == "mixed"
    assert json.loads(stored["precisions"]) == subject.space.precisions(subject.architecture)


def test_precision_and_space_must_agree(tmp_path):
    subject = Subject("cifar-mbv3", seed=8)
    for space, architecture, precision in (
        (subject.space, subject.architecture, "int8"),
        (subject.space.plain, subject.space.plain_architecture(subject.architecture), "mixed"),
    ):
        with pytest.raises(UsageError, match=f"a network of {space.name} cannot be written in {precision}"):
            export_network(
                space, architecture, subject.weights, tmp_path / "x", Target(precision=precision), metadata={}
            )
    with pytest.raises(UsageError, match="an op has one precision: measure mixed networks by --precision fp32,int8"):
        export_ops(subject.space.unique_ops()[:1], Target(precision="mixed"))
    assert list(tmp_path.iterdir()) == []
