"""The predictor of fp32 becomes one of mixed precision: nothing is lost at the start, and few samples teach it bits."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ofa_profiler import Architecture, get_space
from ofa_profiler.errors import UsageError
from ofa_profiler.spaces.genes import BITS
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search import AccuracyPredictor
from ofa_search.artifacts.shipped import shipped_predictor
from ofa_search.predictor import metrics

NAMES = ("cifar-mbv3", "ofa-mbv3-w1.2", "ofa-resnet50")
CIFAR, MIXED = get_space("cifar-mbv3"), MixedSpace.of(get_space("cifar-mbv3"))
INT8_COSTS = 0.01  # when all slots are in int8


@cache
def plain_predictor(name: str) -> AccuracyPredictor:
    """A predictor of MACs and depth: quick, and of every choice."""
    space = get_space(name)
    genomes = space.sample_genomes(np.random.default_rng(0), 300)
    targets = 0.5 + 0.2 * (genomes / space.n_choices).mean(axis=1)
    return AccuracyPredictor.fit(space, space.decode(genomes), targets, hidden=(32, 32), name=name)


def mixed_space(name: str) -> MixedSpace:
    return MixedSpace.of(get_space(name))


def plain_of(architectures: list[Architecture], space: MixedSpace) -> list[Architecture]:
    return [space.plain_architecture(architecture) for architecture in architectures]


def draw(count: int, seed: int) -> list[Architecture]:
    return MIXED.decode(MIXED.sample_genomes(np.random.default_rng(seed), count))


def accuracies(architectures: list[Architecture], noise: float, seed: int = 0) -> NDArray[np.float64]:
    """What the predictor of fp32 says, less for every slot in int8, most for the first ones, and noise."""
    exact = plain_predictor("cifar-mbv3").predict(plain_of(architectures, MIXED))
    for i, architecture in enumerate(architectures):
        weights = np.linspace(2, 0, len(architecture.bits))
        exact[i] -= INT8_COSTS * np.average(np.array(architecture.bits) == 8, weights=weights)
    return exact + noise * np.random.default_rng(seed).standard_normal(len(exact))


# --- the start ---------------------------------------------------------------------------------------


@given(st.sampled_from(NAMES), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_at_the_start_bits_do_not_matter(name: str, seed: int) -> None:
    space, predictor = mixed_space(name), plain_predictor(name)
    drawn = space.decode(space.sample_genomes(np.random.default_rng(seed), 20))
    expected = predictor.predict(plain_of(drawn, space))
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(predictor.widened(space).predict(drawn), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_all_weights_are_taken_over(name: str) -> None:
    space, predictor = mixed_space(name), plain_predictor(name)
    widened = predictor.widened(space)
    assert widened.features.kinds == (*predictor.features.kinds, BITS)
    rows = widened.layers[0].weight
    added = 2 * len(space.slots)
    assert len(rows) == len(predictor.layers[0].weight) + added
    before = len(predictor.layers[0].weight) - len(predictor.features.resolutions)
    assert not rows[before : before + added].any()
    np.testing.assert_array_equal(np.delete(rows, np.s_[before : before + added], axis=0), predictor.layers[0].weight)
    assert widened.layers[1:] == predictor.layers[1:]


def test_the_published_predictor_can_be_transferred(shared_dir: Path) -> None:
    published = AccuracyPredictor.load(shared_dir / "data" / "ofa" / "acc_predictor.pth")
    space = MixedSpace.of(get_space(published.space).with_resolutions((160, 224)))
    drawn = space.decode(space.sample_genomes(np.random.default_rng(1), 50))
    found = published.widened(space).predict(drawn)
    np.testing.assert_allclose(found, published.predict(plain_of(drawn, space)), atol=1e-6)


# --- what it learns ------------------------------------------------------------------------------------


def test_few_samples_teach_what_bits_cost() -> None:
    start = plain_predictor("cifar-mbv3").widened(MIXED)
    samples, others = draw(200, seed=1), draw(400, seed=2)
    found = start.transferred(MIXED, samples, accuracies(samples, noise=0.001))
    exact = accuracies(others, noise=0.0)
    before, after = (metrics(p.predict(others), exact) for p in (start, found))
    assert after.rmse < 0.5 * before.rmse
    assert after.kendall_tau > before.kendall_tau + 0.03
    space = get_space("cifar-mbv3")
    bits = [[each] * len(space.layout(space.largest)) for each in (8, 32)]
    low, high = found.predict([MIXED.with_bits(space.largest, each) for each in bits])
    assert 0.3 * INT8_COSTS < high - low < 1.5 * INT8_COSTS


@pytest.mark.parametrize("seed", range(3))
def test_with_50_noisy_samples_nothing_is_lost(seed: int) -> None:
    """Bits do not matter here, and the start is right: all that 50 samples could teach is noise."""
    start = plain_predictor("cifar-mbv3").widened(MIXED)
    samples, others = draw(50, seed=10 + seed), draw(400, seed=20)
    noise = 0.002 * np.random.default_rng(seed).standard_normal(50)
    exact = start.predict(others)
    found = start.transferred(MIXED, samples, start.predict(samples) + noise, seed=seed)
    scratch = AccuracyPredictor.fit(MIXED, samples, start.predict(samples) + noise, hidden=(32, 32))
    tau, tau_of_scratch = (metrics(p.predict(others), exact).kendall_tau for p in (found, scratch))
    assert tau > 0.97
    assert tau > tau_of_scratch + 0.2


def test_another_level_of_accuracy_is_learned() -> None:
    start = plain_predictor("cifar-mbv3").widened(MIXED)
    samples, others = draw(50, seed=3), draw(200, seed=4)
    found = start.transferred(MIXED, samples, start.predict(samples) - 0.02)
    assert metrics(found.predict(others), start.predict(others) - 0.02).rmse < 0.1


def test_without_anything_to_learn_it_stays_as_it_is() -> None:
    start = plain_predictor("cifar-mbv3").widened(MIXED)
    samples = draw(50, seed=6)
    found = start.transferred(MIXED, samples, start.predict(samples))
    assert found.layers == start.layers


_TRANSFER = """
import sys, numpy as np
from ofa_profiler import get_space
from ofa_search import AccuracyPredictor
space = get_space("cifar-mbv3-mixed")
genomes = space.sample_genomes(np.random.default_rng(0), 40)
samples = space.decode(genomes)
targets = 0.5 + 0.2 * (genomes / space.n_choices).mean(axis=1)
plain = [space.plain_architecture(network) for network in samples]
start = AccuracyPredictor.fit(space.plain, plain, targets, hidden=(64, 64)).widened(space)
targets -= 0.02 * genomes[:, -1]
found = start.transferred(space, samples, targets, seed=int(sys.argv[1]))
assert "torch" not in sys.modules and "scipy" not in sys.modules
sys.stdout.buffer.write(found.predict_genomes(space, genomes).tobytes())
"""


def test_the_seed_decides() -> None:
    def run(seed: str) -> bytes:
        return subprocess.run([sys.executable, "-c", _TRANSFER, seed], capture_output=True, check=True).stdout

    first = run("3")
    assert len(first) == 40 * 8
    assert run("3") == first
    assert run("4") != first


# --- files, and what is refused ------------------------------------------------------------------------


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    start = plain_predictor("cifar-mbv3").widened(MIXED)
    samples = draw(60, seed=5)
    found = start.transferred(MIXED, samples, accuracies(samples, noise=0.0))
    loaded = AccuracyPredictor.load(found.save(tmp_path / "mixed"))
    assert (loaded.space, loaded.features) == ("cifar-mbv3-mixed", found.features)
    assert loaded.knows_bits
    np.testing.assert_array_equal(loaded.predict(samples), found.predict(samples))


def test_what_cannot_be_transferred_is_refused() -> None:
    plain = plain_predictor("cifar-mbv3")
    mixed = plain.widened(MIXED)
    with pytest.raises(UsageError, match="no space of mixed precision"):
        plain.widened(CIFAR)
    with pytest.raises(UsageError, match="mixed precision already"):
        mixed.widened(MIXED)
    with pytest.raises(UsageError, match="is for ofa-resnet50"):
        plain_predictor("ofa-resnet50").widened(MIXED)
    with pytest.raises(UsageError, match="is for cifar-mbv3-mixed"):
        mixed.predict([CIFAR.smallest])
    with pytest.raises(UsageError, match="has one precision"):
        plain.transferred(MIXED, draw(20, seed=0), [0.5] * 20)
    with pytest.raises(UsageError, match="5 samples are too few"):
        mixed.transferred(MIXED, draw(5, seed=0), [0.5] * 5)
    with pytest.raises(UsageError, match=r"accuracy 1\.5 of sample 3"):
        mixed.transferred(MIXED, draw(20, seed=0), [0.5] * 3 + [1.5] * 17)


def test_the_included_predictor_of_each_precision_is_found() -> None:
    plain = shipped_predictor("cifar-mbv3")
    assert plain is not None
    assert plain == shipped_predictor("cifar-mbv3", "fp32")
    mixed = shipped_predictor("cifar-mbv3-mixed")
    assert mixed is not None
    assert mixed == shipped_predictor("cifar-mbv3", "int8") == shipped_predictor("cifar-mbv3", "mixed")
    assert shipped_predictor("ofa-resnet50", "int8") is None
