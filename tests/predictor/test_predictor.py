"""The accuracy predictor: the published numbers, the published file, and files of something else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import types
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa_profiler import Architecture, get_space
from ofa_profiler.errors import InputFileError, UsageError
from ofa_search import AccuracyPredictor

W12 = get_space("ofa-mbv3-w1.2")
EXPRESSIBLE = (128, 144, 160, 176, 192, 208, 224)


def mlp(*sizes: int, seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def save(content: object, path: Path, *, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.fixture(scope="module")
def published(shared_dir: Path) -> Path:
    return shared_dir / "data" / "ofa" / "acc_predictor.pth"


def random_architectures(count: int, seed: int = 0) -> list[Architecture]:
    space = W12.with_resolutions(EXPRESSIBLE)
    return space.decode(space.sample_genomes(np.random.default_rng(seed), count))


def features_by_hand(architecture: Architecture) -> list[int]:
    """The 128 features, spelt out from their definition and nothing of ours."""
    kernels, expands = [0] * 60, [0] * 60
    for stage_number, stage in enumerate(architecture.stages):
        for block, (kernel, expand) in enumerate(zip(stage.kernel_sizes, stage.expand_ratios, strict=True)):
            at = 3 * (4 * stage_number + block)
            kernels[at + (3, 5, 7).index(kernel)] = 1
            expands[at + (3, 4, 6).index(expand)] = 1
    return kernels + expands + [int(architecture.resolution == r) for r in range(112, 225, 16)]


# --- the same numbers ----------------------------------------------------------------------------------


@pytest.fixture
def published_code(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The published `accuracy_predictor.py`, without the package around it, which wants torchvision."""
    spec = importlib.util.find_spec("ofa")
    if spec is None or spec.origin is None:
        pytest.skip("needs the reference code, PyPI's `ofa`")
    for name in ("ofa", "ofa.utils"):
        stand_in = types.ModuleType(name)
        stand_in.download_url = None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, stand_in)
    path = Path(spec.origin).parent / "tutorial" / "accuracy_predictor.py"
    file_spec = importlib.util.spec_from_file_location("published_accuracy_predictor", path)
    assert file_spec is not None
    assert file_spec.loader is not None
    module = importlib.util.module_from_spec(file_spec)
    file_spec.loader.exec_module(module)
    return module


def test_equals_the_published_code(published: Path, published_code: types.ModuleType) -> None:
    theirs = published_code.AccuracyPredictor(pretrained=False, device="cpu")
    theirs.model.load_state_dict(torch.load(published, map_location="cpu"))
    architectures = random_architectures(600, seed=3)

    def padded(values: tuple[int, ...]) -> list[int]:
        return [*values, *[3] * (4 - len(values))]

    specs = [
        {
            "ks": [k for stage in a.stages for k in padded(stage.kernel_sizes)],
            "e": [e for stage in a.stages for e in padded(stage.expand_ratios)],
            "d": [stage.depth for stage in a.stages],
            "r": [a.resolution],
        }
        for a in architectures
    ]
    expected = theirs.predict_accuracy(specs)[:, 0].numpy()
    got = AccuracyPredictor.load(published).predict(architectures)
    assert np.abs(got - expected).max() < 1e-5
    assert np.ptp(got) > 0.02


@pytest.mark.parametrize("legacy", [False, True])
def test_equals_plain_linear_algebra(tmp_path: Path, legacy: bool) -> None:
    model = mlp(128, 40, 30, 1)
    with torch.no_grad():
        model[-1].bias += 0.5
    path = save(model.state_dict(), tmp_path / "p.pth", legacy=legacy)
    architectures = random_architectures(300)
    with torch.no_grad():
        expected = model(torch.tensor([features_by_hand(a) for a in architectures]).float())[:, 0].numpy()
    got = AccuracyPredictor.load(path).predict(architectures)
    assert np.abs(got - expected.clip(0, 1)).max() < 1e-6


def test_accuracy_does_not_depend_on_the_company(tmp_path: Path) -> None:
    """In whatever batch an architecture is predicted, and by genome or by architecture.

    Up to the rounding of BLAS: some kernels round differently by the number of the row.
    """
    predictor = AccuracyPredictor.load(save(mlp(128, 400, 400, 1).state_dict(), tmp_path / "p.pth"))
    space = W12.with_resolutions(EXPRESSIBLE)
    genomes = space.sample_genomes(np.random.default_rng(1), 2500)
    all_at_once = predictor.predict_genomes(space, genomes)
    order = np.random.default_rng(2).permutation(2500)
    np.testing.assert_allclose(predictor.predict_genomes(space, genomes[order]), all_at_once[order], rtol=0, atol=1e-6)
    one_by_one = [predictor.predict([a])[0] for a in space.decode(genomes[:20])]
    np.testing.assert_allclose(one_by_one, all_at_once[:20], rtol=0, atol=1e-6)
    again = predictor.predict_genomes(space, genomes)
    assert (again == all_at_once).all(), "bit for bit in the same batches"


def test_accuracies_are_fractions(tmp_path: Path) -> None:
    model = mlp(128, 8, 1)
    with torch.no_grad():
        model[-1].weight *= 100
    accuracies = AccuracyPredictor.load(save(model.state_dict(), tmp_path / "p.pth")).predict(random_architectures(200))
    assert ((accuracies >= 0) & (accuracies <= 1)).all()


def test_nothing_to_predict(tmp_path: Path) -> None:
    predictor = AccuracyPredictor.load(save(mlp(128, 8, 1).state_dict(), tmp_path / "p.pth"))
    assert predictor.predict([]).shape == (0,)


def test_loading_and_predicting_import_no_torch(tmp_path: Path) -> None:
    path = save(mlp(128, 8, 1).state_dict(), tmp_path / "p.pth")
    code = f"""
import sys, numpy
from ofa_profiler import get_space
from ofa_search import AccuracyPredictor
space = get_space("ofa-mbv3-w1.2")
AccuracyPredictor.load({str(path)!r}).predict([space.sample(numpy.random.default_rng(0))])
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


# --- what it cannot express ----------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> AccuracyPredictor:
    return AccuracyPredictor.load(save(mlp(128, 8, 1).state_dict(), tmp_path / "small.pth"))


def test_a_resolution_between_the_features_is_refused(small: AccuracyPredictor) -> None:
    """The published code counts 132 as 128 without a word."""
    odd = W12.with_resolutions([132]).sample(np.random.default_rng(0))
    with pytest.raises(UsageError, match="132"):
        small.predict([odd])
    assert small.resolutions == tuple(range(112, 225, 16))
    assert small.resolutions_of(W12) == EXPRESSIBLE


def test_a_space_of_other_resolutions_is_refused(small: AccuracyPredictor) -> None:
    with pytest.raises(UsageError, match="cifar-mbv3"):
        small.predict([get_space("cifar-mbv3").sample(np.random.default_rng(0))])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (mlp(100, 8, 1).state_dict(), "100 features"),
        (mlp(128, 8, 2).state_dict(), "2 outputs"),
        ({"conv.weight": torch.zeros(3)}, "not an accuracy predictor"),
        ({"0.weight": torch.zeros(3, 128), "0.bias": torch.zeros(4)}, "do not fit"),
        ({"0.weight": torch.full((1, 128), torch.nan), "0.bias": torch.zeros(1)}, "not finite"),
        ([1, 2], "no state_dict"),
        ({"epoch": 3}, "not a tensor"),
    ],
)
def test_another_kind_of_file_is_refused(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(InputFileError, match=words):
        AccuracyPredictor.load(save(content, tmp_path / "p.pth"))


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02.", b"hello, world", bytes(5000), b"\x80\x04N."])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.pth"
    path.write_bytes(content)
    with pytest.raises(InputFileError):
        AccuracyPredictor.load(path)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be read"):
        AccuracyPredictor.load(tmp_path / "none.pth")
    with pytest.raises(InputFileError, match="a folder, without a file of weights in it"):
        AccuracyPredictor.load(tmp_path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.pth"
    with path.open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(InputFileError, match="larger than"):
        AccuracyPredictor.load(path)
