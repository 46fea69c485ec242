"""From a user's network to the same network in the forms that win, on a device that answers at once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ofa_profiler.devices import FakeDevice, LocalDevice
from ofa_profiler.errors import DeviceError, UsageError
from ofa_profiler.measuring.gains import gains_over
from ofa_profiler.measuring.rewrite import rewrite
from ofa_profiler.models.formats import open_model
from ofa_profiler.models.inputs import feeds_for
from ofa_profiler.protocol.measurement import Measurement
from ofa_profiler.protocol.settings import Settings

SWISH, SCALE = "hard-swish of single operators", "scale and shift after a convolution"
QUICK = Settings(visit_s=0.005, min_visit_samples=7, time_limit_s=20)


def constant(name, values):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values, np.float32)))


def network(path: Path, *, scale: float = 0.3, channels: int = 16, more=()) -> Path:
    """Convolution, scale and shift, hard-swish of single operators."""
    weight = np.random.default_rng(0).uniform(-0.2, 0.2, (channels, 3, 3, 3)).astype(np.float32)
    nodes = [
        *(constant(name, value) for name, value in (("scale", scale), ("three", 3), ("zero", 0), ("six", 6))),
        helper.make_node("Conv", ["x", "w"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["conv", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "three"], ["shifted"]),
        helper.make_node("Clip", ["shifted", "zero", "six"], ["clipped"]),
        helper.make_node("Mul", ["scaled", "clipped"], ["product"]),
        helper.make_node("Div", ["product", "six"], ["swish"]),
        *(more or [helper.make_node("GlobalAveragePool", ["swish"], ["y"])]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


@dataclass
class Case:
    """A network, and what the device says of it: key -> milliseconds."""

    path: Path
    out: Path

    def rewrite(self, device, out=None):
        model = open_model(self.path)
        return rewrite(model, feeds_for(model.inputs, {}), out or self.out, device, QUICK)


@pytest.fixture
def case(tmp_path):
    return Case(network(tmp_path / "net.onnx"), tmp_path / "out.onnx")


def device(times, **more):
    return FakeDevice(latency_ms=lambda key: times[key], noise=0.001, **more)


def test_the_winners_together_are_written(case):
    before = hashlib.sha256(case.path.read_bytes()).digest()
    times = {"before": 2.0, SWISH: 1.5, SCALE: 1.8, "all patterns": 1.2, "winners": 1.2}
    times["scale and shift of channels"] = 2.5
    result = case.rewrite(device(times))
    assert result.path == case.out
    assert result.patterns == (SWISH, SCALE)
    assert result.gain is not None
    assert result.gain.factor == pytest.approx(2.0 / 1.2, rel=0.01)
    assert {trial.pattern: trial.wins for trial in result.trials} == {
        SWISH: True,
        SCALE: True,
        "scale and shift of channels": False,
    }
    kinds = [node.op_type for node in onnx.load(case.out).graph.node]
    assert [kind for kind in kinds if kind != "Constant"] == ["Conv", "HardSigmoid", "Mul", "GlobalAveragePool"]
    assert hashlib.sha256(case.path.read_bytes()).digest() == before
    assert any("1.667x" in line for line in result.lines())
    assert result.to_json()["patterns"] == [SWISH, SCALE]
    assert result.to_json()["before"]["median_ms"] == pytest.approx(2.0, rel=0.01)


def test_patterns_that_win_only_together(case):
    times = dict.fromkeys((SWISH, SCALE, "scale and shift of channels", "before"), 2.0) | {"all patterns": 1.5}
    result = case.rewrite(device(times))
    assert result.path == case.out
    assert len(result.patterns) == 3
    assert not any(trial.wins for trial in result.trials)


@pytest.mark.parametrize("factor", [1.0, 0.995, 1.2])
def test_nothing_is_written_where_nothing_wins(case, factor):
    result = case.rewrite(FakeDevice(latency_ms=lambda key: 2.0 if key == "before" else 2.0 * factor, noise=0.001))
    assert result.path is None
    assert not case.out.exists()
    assert "nothing is written: no form is faster on this device" in result.lines()


def test_a_gain_that_the_second_measurement_does_not_confirm(case):
    times = {"before": 2.0, SWISH: 1.5, SCALE: 2.0, "scale and shift of channels": 2.0, "all patterns": 2.0}
    result = case.rewrite(device(times | {"winners": 2.0}))
    assert result.path is None
    assert not case.out.exists()
    assert "together they are not faster" in result.lines()[-1]


def test_a_pattern_that_the_device_does_not_run_is_not_used(case):
    times = {"before": 2.0, SWISH: 1.5, SCALE: 2.0, "scale and shift of channels": 2.0, "all patterns": 2.0}
    result = case.rewrite(device(times | {"winners": 1.5}, failing={SWISH}))
    assert "fails on purpose" in next(trial for trial in result.trials if trial.pattern == SWISH).error
    assert result.path is None


def test_a_device_that_does_not_run_the_network(case):
    with pytest.raises(DeviceError, match=r"net\.onnx"):
        case.rewrite(FakeDevice(failing={"before"}))


def test_a_network_whose_outputs_would_change_is_refused(tmp_path):
    """The difference of two nearly equal results is nothing but rounding."""
    more = [
        helper.make_node("HardSigmoid", ["scaled"], ["gate"], alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", ["scaled", "gate"], ["other"]),
        helper.make_node("Sub", ["swish", "other"], ["rounding"]),
        constant("large", 1e6),
        helper.make_node("Mul", ["rounding", "large"], ["y"]),
    ]
    case = Case(network(tmp_path / "net.onnx", more=more), tmp_path / "out.onnx")
    result = case.rewrite(FakeDevice(latency_ms=lambda key: 2.0 if key == "before" else 1.0))
    refused = {trial.pattern: trial.error for trial in result.trials if trial.error}
    assert "the outputs differ by" in refused[SWISH]
    assert SWISH not in result.patterns


def test_patterns_that_are_all_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ofa_profiler.measuring.rewrite.LARGEST_DIFFERENCE", -1.0)
    case = Case(network(tmp_path / "net.onnx"), tmp_path / "out.onnx")
    result = case.rewrite(FakeDevice())
    assert len(result.trials) == 3
    assert result.lines()[-1] == "nothing is written: no form can be used"
    assert not case.out.exists()


def test_a_network_without_patterns(tmp_path):
    path = tmp_path / "net.onnx"
    graph = helper.make_graph(
        [helper.make_node("Tanh", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    result = Case(path, tmp_path / "out.onnx").rewrite(FakeDevice())
    assert result.lines() == ["nothing is written: it has no known pattern"]


@pytest.mark.parametrize(
    ("out", "words"),
    [("net.onnx", "is the input file"), ("out.tflite", "with this suffix"), ("folder.onnx", "is a folder")],
)
def test_wrong_paths(case, out, words):
    (case.path.parent / "folder.onnx").mkdir()
    with pytest.raises(UsageError, match=words):
        case.rewrite(FakeDevice(), case.path.parent / out)


def test_a_link_to_the_input_file_is_the_input_file(case):
    link = case.path.parent / "link.onnx"
    link.hardlink_to(case.path)
    with pytest.raises(UsageError, match="never changed"):
        case.rewrite(FakeDevice(), link)


def test_on_this_machine(tmp_path):
    """The scale alone does not decide what wins here, but every outcome must be consistent."""
    case = Case(network(tmp_path / "net.onnx"), tmp_path / "out.onnx")
    result = case.rewrite(LocalDevice())
    assert {trial.pattern for trial in result.trials} >= {SWISH, SCALE}
    assert all(trial.gain is not None for trial in result.trials)
    assert case.out.exists() == (result.path is not None)
    if result.path is not None:
        x = np.random.default_rng(5).uniform(-1, 1, (1, 3, 16, 16)).astype(np.float32)
        plain, other = (open_model(path).run({"x": x})["y"] for path in (case.path, case.out))
        assert np.abs(plain - other).max() <= 1e-5 * np.abs(plain).max()


def measured(key: str, *medians: float, slowed: int = 0) -> Measurement:
    """Rounds of seven runs, some of which other programs slow down."""
    return Measurement(key, tuple((median,) * (7 - slowed) + (3 * median,) * slowed for median in medians))


def test_gains_follow_from_steady_times():
    """Other programs that disturb some runs, or a whole round, do not count."""
    before = measured("before", *(2.0, 2.01) * 4, 6.0)
    found = gains_over("before", {"before": before, "a": measured("a", *(1.0, 1.005) * 4, slowed=3)})
    assert found["a"].factor == pytest.approx(2.0, rel=0.02)
    assert found["a"].wins


def test_a_gain_within_the_noise_of_the_session_does_not_win():
    found = gains_over(
        "a", {"a": measured("a", 1.0, 1.2), "b": measured("b", 0.95, 1.1), "c": measured("c", 0.3, 0.36)}
    )
    assert not found["b"].wins
    assert found["c"].wins
    assert found["b"].half_width == found["c"].half_width


def test_without_a_second_round_or_a_time_there_is_no_gain():
    assert gains_over("a", {"a": measured("a", 1.0), "b": measured("b", 1.0)}) == {}
    failed = Measurement("b", (), "failed", "why")
    assert gains_over("a", {"a": measured("a", 1.0, 1.0), "b": failed}) == {}
    assert gains_over("b", {"a": measured("a", 1.0, 1.0), "b": failed}) == {}
