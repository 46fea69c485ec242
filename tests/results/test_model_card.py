"""The model card: the same fields for all commands, and `examples/classify.py` reads every one of them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from support.paths import ROOT

from ofa_profiler import Architecture, get_space
from ofa_profiler.base.version import __version__
from ofa_profiler.export import export_network
from ofa_profiler.networks.made_up_weights import random_weights
from ofa_search.results.model_card import TRAINED, ModelCard, SearchFacts

SPACE = get_space("cifar-mbv3")
LABELS = tuple("abcdefghij")
SEARCHED = ModelCard(
    tool="ofa-search",
    architecture=SPACE.smallest,
    weights=TRAINED,
    accuracy={"predicted": 0.9, "predictor": None, "supernet": None},
    labels=LABELS,
    search=SearchFacts(0.9, {"board": 1.5}, {"board": 2.0}),
)
MEASURED = ModelCard("ofa-train", SPACE.smallest, TRAINED, {"test": {"images": 100, "top1": 0.85}}, LABELS)


@pytest.fixture(scope="module")
def classify() -> ModuleType:
    spec = importlib.util.spec_from_file_location("classify", ROOT / "examples" / "classify.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_fields_are_stored_as_text_or_json() -> None:
    metadata = SEARCHED.metadata()
    assert {name: metadata[name] for name in ("space", "weights", "tool")} == {
        "space": "cifar-mbv3", "weights": "trained", "tool": f"ofa-search {__version__}"
    }  # fmt: skip
    assert Architecture.from_json(json.loads(metadata["architecture"])) == SPACE.smallest
    assert metadata["accuracy"] == '{"predicted": 0.9, "predictor": null, "supernet": null}'
    assert metadata["labels"] == json.dumps(list(LABELS))
    assert json.loads(metadata["preprocessing"])["resolution"] == SPACE.smallest.resolution
    assert metadata["predicted_accuracy"] == "0.9"
    assert (metadata["latency_ms"], metadata["budget_ms"]) == ('{"board": 1.5}', '{"board": 2.0}')


def test_a_network_without_budget_or_labels_says_so() -> None:
    metadata = ModelCard("ofa-train", SPACE.smallest, TRAINED, {}).metadata()
    assert metadata["labels"] == "null"
    assert set(SEARCHED.metadata()) - set(metadata) == {"predicted_accuracy", "latency_ms", "budget_ms"}


def test_the_document_of_a_command_has_the_same_fields() -> None:
    metadata = SEARCHED.metadata()
    for name, value in SEARCHED.to_json().items():
        assert metadata[name] == value or json.loads(metadata[name]) == value


def test_the_example_documents_every_field(classify: ModuleType) -> None:
    metadata = SEARCHED.metadata()
    assert set(classify.CARD) == {*metadata, "precision", "ranges"}, "int8 files have two more"
    assert set(MEASURED.metadata()) < set(classify.CARD)
    for name, text in metadata.items():
        if name in classify.TEXTS:
            assert not text.startswith(("{", "[", '"'))
        else:
            json.loads(text)


@pytest.mark.parametrize(
    ("card", "words"),
    [(SEARCHED, "predicted by the search: 90.00%"), (MEASURED, "measured after training (test): 85.00% of 100 images")],
)
def test_the_example_reads_the_models_of_all_commands(
    classify: ModuleType,
    card: ModelCard,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = random_weights(SPACE.layout(SPACE.smallest), np.random.default_rng(0))
    model = export_network(SPACE, SPACE.smallest, weights, tmp_path / "net.onnx", metadata=card.metadata())
    (tmp_path / "images" / "a").mkdir(parents=True)
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(tmp_path / "images" / "a" / "black.png")
    monkeypatch.setattr(sys, "argv", ["classify.py", str(model), "--folder", str(tmp_path / "images")])
    assert classify.main() == 0
    assert capsys.readouterr().out.splitlines()[-1] == words
