"""The accuracy predictor of ResNet50 that the OFA authors publish: `layers.*`, `base_acc`, 82 features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.reference import choice, do_without_torchvision

from ofa_profiler import Architecture, get_space
from ofa_profiler.errors import InputFileError
from ofa_search import AccuracyPredictor

SPACE = get_space("ofa-resnet50")
RESOLUTIONS = [128, 144, 160, 176, 192, 224, 240, 256]


def network(features: int = 82, hidden: int = 12, layers: int = 3) -> torch.nn.Module:
    """Built as `ofa.nas.accuracy_predictor.AccuracyPredictor` builds it."""
    torch.manual_seed(0)
    parts: list[torch.nn.Module] = []
    for number in range(layers):
        linear = torch.nn.Linear(hidden if number else features, hidden)
        parts.append(torch.nn.Sequential(linear, torch.nn.ReLU()))
    module = torch.nn.Module()
    module.layers = torch.nn.Sequential(*parts, torch.nn.Linear(hidden, 1, bias=False))
    module.base_acc = torch.nn.Parameter(torch.tensor([0.5]), requires_grad=False)
    return module


def features_by_hand(architecture: Architecture) -> list[float]:
    """The 82 features, spelt out: resolution, stem, widths, expand ratios."""
    assert architecture.stem is not None
    widths = [*architecture.stem.width_mults, *(stage.width_mult for stage in architecture.stages)]
    ratios = [ratio for stage, most in zip(architecture.stages, (4, 4, 6, 4), strict=True)
              for ratio in (*stage.expand_ratios, *[None] * (most - stage.depth))]  # fmt: skip
    hot = [architecture.resolution == r for r in RESOLUTIONS]
    hot += [architecture.stem.depth == depth for depth in (2, 3)]
    hot += [width == choice for width in widths for choice in (0.65, 0.8, 1.0)]
    hot += [ratio == choice for ratio in ratios for choice in (0.2, 0.25, 0.35)]
    return [float(value) for value in hot]


def architectures(count: int) -> list[Architecture]:
    return SPACE.decode(SPACE.sample_genomes(np.random.default_rng(0), count))


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {"module." + n: t for n, t in s.items()}}])
def test_the_same_numbers_as_torch(tmp_path: Path, wrap: Any) -> None:
    module = network()
    torch.save(wrap(module.state_dict()), tmp_path / "p.pth")
    predictor = AccuracyPredictor.load(tmp_path / "p.pth")
    assert (predictor.space, predictor.resolutions) == ("ofa-resnet50", tuple(RESOLUTIONS))
    chosen = architectures(100)
    with torch.no_grad():
        inputs = torch.tensor([features_by_hand(architecture) for architecture in chosen])
        expected = (module.layers(inputs)[:, 0] + module.base_acc).clip(0, 1).numpy()
    assert len(set(expected)) > 50
    np.testing.assert_allclose(predictor.predict(chosen), expected, atol=1e-6)


def test_the_same_features_as_the_authors_code() -> None:
    do_without_torchvision()
    encoders = pytest.importorskip("ofa.nas.accuracy_predictor", reason="needs PyPI's `ofa`", exc_type=ImportError)
    encoder = encoders.ResNetArchEncoder(image_size_list=RESOLUTIONS)
    assert encoder.n_dim == 82
    for architecture in architectures(50):
        theirs = encoder.arch2feature({**choice(architecture), "image_size": architecture.resolution})
        assert theirs.tolist() == features_by_hand(architecture)


def test_it_can_be_saved_as_ours(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "p.pth")
    predictor = AccuracyPredictor.load(tmp_path / "p.pth")
    again = AccuracyPredictor.load(predictor.save(tmp_path / "ours"))
    chosen = architectures(20)
    np.testing.assert_array_equal(again.predict(chosen), predictor.predict(chosen))


def test_the_published_file(shared_dir: Path) -> None:
    path = next(shared_dir.glob("*/*/ofa_resnet50_acc_predictor.pth"), None)
    if path is None:
        pytest.skip("needs the published file")
    predictor = AccuracyPredictor.load(path)
    predicted = predictor.predict(architectures(300))
    assert 0.74 < predicted.min() < 0.80 < predicted.max() < 0.84
    smallest, largest = predictor.predict([SPACE.at(128).smallest, SPACE.at(256).largest])
    assert smallest < predicted.min() < predicted.max() <= largest + 0.01


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.update({"layers.0.0.weight": torch.zeros(12, 94)}), "takes 94 features; a predictor of this"),
        (lambda s: s.update({"layers.0.0.weight": torch.zeros(12, 121)}), "format has 82, for ofa-resnet50"),
        (lambda s: s.update({"extra": torch.zeros(1)}), "it holds 'extra'"),
        (lambda s: s.update({"base_acc": torch.zeros(2)}), "do not fit"),
        (lambda s: s.update({"base_acc": torch.tensor([torch.nan])}), "not finite"),
        (lambda s: s.pop("layers.1.0.bias"), "not an accuracy predictor"),
        (lambda s: s.update({"layers.3.weight": torch.zeros(2, 12)}), "do not fit|2 outputs"),
        (lambda s: s.pop("layers.0.0.weight"), "not an accuracy predictor"),
        (lambda s: [s.pop(name) for name in list(s) if name != "base_acc"], "not an accuracy predictor"),
    ],
)
def test_files_of_something_else(tmp_path: Path, change: Any, words: str) -> None:
    tensors = dict(network().state_dict())
    change(tensors)
    torch.save(tensors, tmp_path / "p.pth")
    with pytest.raises(InputFileError, match=words) as refused:
        AccuracyPredictor.load(tmp_path / "p.pth")
    assert len(str(refused.value).splitlines()) == 1
