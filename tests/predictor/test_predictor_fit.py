"""Fitting an accuracy predictor: what it learns from few samples, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ofa_profiler import Architecture, get_space
from ofa_profiler.errors import UsageError
from ofa_profiler.spaces import SearchSpace
from ofa_profiler.verification.agreement import kendall_tau
from ofa_search import AccuracyPredictor
from ofa_search.predictor import Features, metrics

CIFAR = get_space("cifar-mbv3")
SMALL = (32, 32)  # hidden layers where it is not about accuracy


def draw(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    return space.decode(space.sample_genomes(np.random.default_rng(seed), count))


def made_up_accuracy(architecture: Architecture) -> float:
    """Grows with every choice and levels off: in a stage, over the network, and with the resolution.

    Later blocks of a stage bring less, kernels and widths help each other, and a stage counts for
    something of its own: what is known of such networks. From 0.73 to 0.88; random ones deviate by 1.7 points.
    """
    capacity = 0.0
    for weight, stage in zip((0.7, 0.9, 1.3, 1.1, 0.8), architecture.stages, strict=True):
        inside = 0.0
        for block, (kernel, expand) in enumerate(zip(stage.kernel_sizes, stage.expand_ratios, strict=True)):
            wide, large = np.log2(expand / 3), np.log2(kernel / 3)
            inside += 0.75**block * (1 + 0.15 * large + 0.35 * wide + 0.1 * large * wide)
        capacity += weight * np.log1p(inside)
    capacity += 2 * np.log2(architecture.resolution / 32)
    return float(0.93 - 0.8 * np.exp(-0.35 * capacity))


def accuracies(architectures: list[Architecture], noise: float = 0.0, seed: int = 0) -> NDArray[np.float64]:
    exact = np.array([made_up_accuracy(a) for a in architectures])
    return exact + noise * np.random.default_rng(seed).standard_normal(len(exact))


# --- how well it learns --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted() -> AccuracyPredictor:
    """From 500 samples, with the noise of some thousand images."""
    samples = draw(CIFAR, 500, seed=1)
    return AccuracyPredictor.fit(CIFAR, samples, accuracies(samples, noise=0.001), seed=0, name="cifar")


def test_500_samples_give_the_order(fitted: AccuracyPredictor) -> None:
    others = draw(CIFAR, 1000, seed=2)
    exact = accuracies(others)
    assert np.ptp(exact) > 0.08
    found = metrics(fitted.predict(others), exact)
    assert found.kendall_tau >= 0.9
    assert found.rmse <= 0.5
    assert found.samples == 1000


def test_it_finds_what_is_best_and_worst(fitted: AccuracyPredictor) -> None:
    """Beyond the samples, too: the ends are no more often among 500 than any other network."""
    largest, smallest = CIFAR.largest, CIFAR.smallest
    at_largest, at_smallest = fitted.predict([largest, smallest])
    predicted = fitted.predict(draw(CIFAR, 1000, seed=3))
    assert at_largest > np.quantile(predicted, 0.999)
    assert at_smallest < np.quantile(predicted, 0.001)


def test_noise_is_not_learned() -> None:
    """Predictions of 200 noisy samples are closer to what they would be without noise than the samples are."""
    samples, others = draw(CIFAR, 200, seed=4), draw(CIFAR, 500, seed=5)
    predictor = AccuracyPredictor.fit(CIFAR, samples, accuracies(samples, noise=0.01), hidden=SMALL)
    found = metrics(predictor.predict(others), accuracies(others))
    assert found.rmse < 1.0
    assert found.kendall_tau > 0.65


@pytest.mark.slow
def test_it_learns_what_the_published_predictor_knows(shared_dir: Path) -> None:
    """Accuracies with the differences of real ones: 7 points over random networks."""
    published = AccuracyPredictor.load(shared_dir / "data" / "ofa" / "acc_predictor.pth")
    space = get_space("ofa-mbv3-w1.2").with_resolutions((160, 176, 192, 208, 224))
    samples, others = draw(space, 500, seed=6), draw(space, 1000, seed=7)
    ours = AccuracyPredictor.fit(space, samples, published.predict(samples))
    found = metrics(ours.predict(others), published.predict(others))
    assert found.kendall_tau > 0.86
    assert found.rmse < 0.3


def test_choices_of_every_kind_are_learned() -> None:
    """The ResNet space chooses widths and a stem: features of these, too."""
    space = get_space("ofa-resnet50")
    assert {"width_mult", "last_width_mult", "depth", "expand_ratio"} == set(Features.of(space).kinds)

    def cost(architecture: Architecture) -> float:
        assert architecture.stem is not None
        widths = sum(stage.width_mult or 0 for stage in architecture.stages) + sum(architecture.stem.width_mults)
        inside = sum(sum(stage.expand_ratios) for stage in architecture.stages)
        return widths / 6 + inside / 4 + 0.2 * architecture.stem.depth + architecture.resolution / 256

    samples, others = draw(space, 600, seed=8), draw(space, 300, seed=9)
    scale = 0.05
    predictor = AccuracyPredictor.fit(space, samples, [0.6 + scale * cost(a) for a in samples], hidden=(100, 100))
    found = metrics(predictor.predict(others), [0.6 + scale * cost(a) for a in others])
    assert found.kendall_tau > 0.95


def test_any_range_of_accuracies_is_fitted() -> None:
    """The same order in a hundredth of the range, as of a hundred classes or of a last percent."""
    samples, others = draw(CIFAR, 300, seed=10), draw(CIFAR, 300, seed=11)
    exact, unseen = accuracies(samples), accuracies(others)
    wide = AccuracyPredictor.fit(CIFAR, samples, exact, hidden=SMALL).predict(others)
    narrow = AccuracyPredictor.fit(CIFAR, samples, 0.99 + exact / 100, hidden=SMALL).predict(others)
    assert metrics(narrow, 0.99 + unseen / 100).kendall_tau > 0.85
    np.testing.assert_allclose((narrow - 0.99) * 100, wide, atol=2e-3)


def test_equal_accuracies_give_that_accuracy() -> None:
    predictor = AccuracyPredictor.fit(CIFAR, draw(CIFAR, 20, seed=0), [0.5] * 20, hidden=SMALL)
    np.testing.assert_allclose(predictor.predict(draw(CIFAR, 20, seed=1)), 0.5, atol=1e-6)


def test_weights_say_how_much_a_sample_counts() -> None:
    """Samples of weight 0 are as good as absent, whatever accuracy they claim."""
    samples, others = draw(CIFAR, 400, seed=12), draw(CIFAR, 300, seed=13)
    claimed = accuracies(samples)
    claimed[1::2] = np.random.default_rng(0).permutation(claimed[1::2])
    weights = np.tile((1.0, 0.0), 200)
    trusted = AccuracyPredictor.fit(CIFAR, samples, claimed, sample_weight=weights, hidden=SMALL)
    believed = AccuracyPredictor.fit(CIFAR, samples, claimed, hidden=SMALL)
    exact = accuracies(others)
    taus = [metrics(p.predict(others), exact).kendall_tau for p in (trusted, believed)]
    assert taus[0] > 0.8
    assert taus[0] > taus[1] + 0.05


# --- same seed, same predictor --------------------------------------------------------------------------

_FIT = """
import sys, numpy as np
from ofa_profiler import get_space
from ofa_search import AccuracyPredictor
space = get_space("cifar-mbv3")
genomes = space.sample_genomes(np.random.default_rng(0), 150)
made_up = genomes.mean(axis=1) / 4
predictor = AccuracyPredictor.fit(space, space.decode(genomes), made_up, seed=int(sys.argv[1]), hidden=(64, 64))
sys.stdout.buffer.write(predictor.predict_genomes(space, genomes).tobytes())
assert "torch" not in sys.modules and "scipy" not in sys.modules
"""


def test_the_seed_decides() -> None:
    def run(seed: str) -> bytes:
        return subprocess.run([sys.executable, "-c", _FIT, seed], capture_output=True, check=True, timeout=300).stdout

    first = run("3")
    assert len(first) == 150 * 8
    assert run("3") == first
    assert run("4") != first


# --- what it knows, and what it refuses ------------------------------------------------------------------


def test_it_says_what_it_is(fitted: AccuracyPredictor) -> None:
    assert (fitted.name, fitted.space, fitted.n_classes) == ("cifar", "cifar-mbv3", 10)
    assert fitted.resolutions == (24, 28, 32)
    assert [layer.bias.size for layer in fitted.layers] == [400, 400, 400, 1]
    with pytest.raises(UsageError, match="cifar-mbv3"):
        fitted.predict(draw(get_space("ofa-mbv3-w1.2"), 1, seed=0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"accuracies": [0.5] * 19}, r"20 architectures but accuracies of shape \(19,\)"),
        ({"accuracies": [[0.5]] * 20}, "accuracies of shape"),
        ({"accuracies": [0.5] * 19 + [91.2]}, r"91.2 of sample 19 is not in \[0, 1\]"),
        ({"accuracies": [0.5] * 19 + [np.nan]}, "nan of sample 19"),
        ({"sample_weight": [1.0] * 19}, "sample weights of shape"),
        ({"sample_weight": [-1.0] + [1.0] * 19}, "0 or more"),
        ({"sample_weight": [0.0] * 20}, "not all 0"),
        ({"hidden": (0,)}, "hidden layers"),
        ({"architectures": []}, "0 samples are too few"),
        ({"space": get_space("ofa-mbv3-w1.0")}, "cifar-mbv3"),
        ({"space": CIFAR.with_resolutions([32])}, "resolution"),
    ],
)
def test_samples_that_make_no_sense_are_refused(changes: dict[str, object], words: str) -> None:
    arguments = {"space": CIFAR, "architectures": draw(CIFAR, 20, seed=0), "accuracies": [0.5] * 20, **changes}
    with pytest.raises(UsageError, match=words):
        AccuracyPredictor.fit(**arguments)  # type: ignore[arg-type]


# --- the measures ----------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-1e6, 1e6)), min_size=2, max_size=60))
def test_kendall_is_that_of_scipy(pairs: list[tuple[int, float]]) -> None:
    first, second = np.array(pairs, dtype=float).T
    np.testing.assert_allclose(kendall_tau(first, second), scipy.stats.kendalltau(first, second).statistic, atol=1e-12)


def test_metrics_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    measured = rng.uniform(0.7, 0.9, 3000).round(3)  # with ties, as of a few thousand images
    predicted = measured + 0.01 * rng.standard_normal(3000)
    found = metrics(predicted, measured)
    assert found.rmse == pytest.approx(1.0, rel=0.05)
    assert found.kendall_tau == pytest.approx(scipy.stats.kendalltau(predicted, measured).statistic)
    assert found.spearman == pytest.approx(scipy.stats.spearmanr(predicted, measured).statistic)


def test_what_does_not_vary_has_no_rank_correlation() -> None:
    assert metrics([0.5, 0.5], [0.1, 0.2]).to_json() == {
        "rmse": pytest.approx(35.36, abs=0.01),
        "kendall_tau": None,
        "spearman": None,
        "samples": 2,
    }
