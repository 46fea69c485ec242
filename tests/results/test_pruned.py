"""The files, the document and the report of a pruned network."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file
from support.paths import ROOT
from torch import nn

from ofa_profiler.devices import FakeDevice
from ofa_profiler.errors import UsageError
from ofa_profiler.models.image_input import image_input
from ofa_profiler.protocol.settings import Settings
from ofa_search.pruning.groups import Unprunable
from ofa_search.results.pruned import CutNetwork, GroupUnits, Latency, NetworkFacts, PrunedResult, card, write_document
from ofa_search.results.pruned_files import (
    OnnxRun,
    channels_of,
    check_outputs,
    layer_channels,
    macs_of,
    parameters_of,
    write_onnx,
    write_weights,
)
from ofa_search.results.pruned_measure import measure_for_budget
from ofa_search.results.pruned_report import latency_words, report_page, write_report

SHAPE = (1, 3, 16, 16)
INPUT = image_input({"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}, 16, "nets:small")
LATENCY = Latency("small-grid", "a board", {"runtime": "onnxruntime", "threads": 2}, 2.0)


def network(channels: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), *head).eval()


def result(measured_ms: float | None = 1.9) -> PrunedResult:
    accuracy = {"held_out": {"images": 50, "top1": 0.9}}
    before = NetworkFacts(accuracy, 4.0, 4.1, 1_000_000, 5000, {"onnx": 20_000})
    after = NetworkFacts({"held_out": {"images": 50, "top1": 0.88}}, measured_ms, 1.95, 400_000, 2000, {"onnx": 9000})
    layers = layer_channels(channels_of(network()), network(4))
    pruned = CutNetwork(network(4), {"indices": [0, 1]}, (GroupUnits("0", "channels", 8, 4),), layers)
    return PrunedResult(
        "nets:small",
        INPUT,
        ("a<b", "c", "d"),
        "hesso",
        pruned,
        before,
        after,
        [Unprunable("5", 3, "they are the outputs")],
        LATENCY,
        {"epochs": 2.0, "optimizer": "sgd"},
        {"onnx": Path("out/small.onnx")},
        "no LayerNorm in TFLite",
    )


def test_the_onnx_file_computes_what_torch_does_and_says_what_it_is(tmp_path: Path) -> None:
    module = network()
    metadata = card("nets:small", INPUT, ["a", "b", "c"], {"test": {"images": 3, "top1": 1.0}}, LATENCY, 1.9)
    path = write_onnx(module, SHAPE, tmp_path / "small.onnx", metadata)
    assert check_outputs(module, SHAPE, OnnxRun(path.read_bytes()), "small.onnx") < 1e-5
    stored = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(stored["labels"]) == ["a", "b", "c"]
    assert json.loads(stored["budget_ms"]) == {"small-grid": 2.0}
    assert macs_of(path, SHAPE) == 16 * 16 * 27 * 8 + 8 * 3
    assert parameters_of(module) == 27 * 8 + 8 + 16 + 27


def test_a_file_that_computes_something_else_is_not_written(tmp_path: Path) -> None:
    path = write_onnx(network(), SHAPE, tmp_path / "small.onnx", {})
    other = network()
    with torch.no_grad():
        other[5].bias += 0.1
    with pytest.raises(UsageError, match=r"outputs of small.onnx differ from those of torch by 0\.\d+ of the largest"):
        check_outputs(other, SHAPE, OnnxRun(path.read_bytes()), "small.onnx")


def test_the_example_runs_the_file(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    from PIL import Image

    spec = importlib.util.spec_from_file_location("classify", ROOT / "examples" / "classify.py")
    assert spec
    assert spec.loader
    classify = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(classify)
    module = network()
    metadata = card("nets:small", INPUT, ["a", "b", "c"], {}, LATENCY, None)
    opened = classify.Network(write_onnx(module, SHAPE, tmp_path / "small.onnx", metadata))
    assert opened.labels == ["a", "b", "c"]
    values = opened.prepared(Image.new("RGB", (16, 16), (255, 0, 128)))
    expected = module(torch.from_numpy(values)).detach().numpy()[0]
    np.testing.assert_allclose(opened.logits(values), expected, atol=1e-5)


def test_weights_are_those_of_the_module(tmp_path: Path) -> None:
    module = network(4)
    path = write_weights(module, tmp_path / "small.safetensors", {"model": "nets:small"})
    other = network(4)
    with torch.no_grad():
        other[0].weight.zero_()
    other.load_state_dict(load_file(path))
    values = torch.randn(SHAPE)
    assert torch.equal(other(values), module(values))


def test_the_document_is_json_with_both_networks() -> None:
    document = json.loads(json.dumps(result().to_json(), allow_nan=False))
    assert document["model"] == "nets:small"
    assert document["input"] == [1, 3, 16, 16]
    assert document["accuracy"] == document["after"]["accuracy"]
    assert (document["before"]["measured_ms"], document["after"]["measured_ms"]) == (4.0, 1.9)
    assert document["layers"][0] == {"layer": "0", "before": [8, 3], "after": [4, 3]}
    assert document["groups"] == [{"group": "0", "kind": "channels", "before": 8, "after": 4}]
    assert document["unprunable"][0]["reason"] == "they are the outputs"
    assert document["files"] == {"onnx": "small.onnx"}
    assert document["record"] == {"indices": [0, 1]}
    assert document["latency"]["settings"]["threads"] == 2


def test_whether_the_budget_is_kept() -> None:
    assert latency_words(result()) == "1.9 ms measured, which keeps the budget of 2 ms"
    assert latency_words(result(2.2)) == "2.2 ms measured, which is over the budget of 2 ms"
    found = replace(result(None), latency=replace(LATENCY, missing_points=7))
    assert latency_words(found) == (
        "1.95 ms predicted by the table small-grid; 7 points that it lacks were not used; nothing was measured"
    )


def test_the_report_has_before_and_after(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    page = report_page(result())
    assert [section.title for section in page.sections] == [
        "Before and after",
        "Channels per layer",
        "Groups",
        "Not prunable",
    ]
    assert page.title == "small for a budget of 2 ms"
    assert page.facts["training"] == "2 epochs, optimizer sgd"
    assert page.facts["TFLite"] == "not written: no LayerNorm in TFLite"
    rows = {row[0]: row[1:] for row in page.sections[0].figure.rows}  # type: ignore[union-attr]
    assert rows["top-1, 50 held-out images"] == ("90.00%", "88.00%", "-2.00 points")
    assert rows["milliseconds, measured"] == ("4", "1.9", "47.5% of it")
    assert rows["ONNX file"][0] == "20 KB"
    path = write_report(result(), tmp_path / "small.html")
    assert path is not None
    assert "Channels per layer" in path.read_text()


def test_a_disturbed_measurement_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [{"before": 5.0, "after": 2.5}, {"before": 4.0, "after": 1.9}, {"before": 4.0, "after": 1.8}]
    monkeypatch.setattr("ofa_search.results.pruned_measure.measure_files", lambda *_, **__: sessions.pop(0))
    how = (FakeDevice(), {}, SHAPE, Settings(), "after")
    assert measure_for_budget(*how, 2.0) == {"before": 4.0, "after": 1.9}
    assert len(sessions) == 1
    sessions.extend([{"before": 4.0, "after": 2.2}, {"before": 4.0, "after": 2.1}])
    assert measure_for_budget(*how, 1.0) == {"before": 4.0, "after": 1.8}


def test_lists_of_numbers_take_a_line(tmp_path: Path) -> None:
    write_document(result(), tmp_path / "small.json", None)
    text = (tmp_path / "small.json").read_text()
    assert '"indices": [ 0, 1 ]' in text
    assert json.loads(text) == json.loads(json.dumps(result().to_json()))
