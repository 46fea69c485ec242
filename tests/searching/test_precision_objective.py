"""What a search maximises in each precision: the accuracy of the network as it will run."""

from __future__ import annotations

import numpy as np
import pytest

from ofa_profiler import get_space
from ofa_profiler.errors import UsageError
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_search import AccuracyPredictor, PredictedAccuracy
from ofa_search.searching.objectives import predicted_accuracy

SPACE = get_space("cifar-mbv3")
MIXED = MixedSpace.of(SPACE)


@pytest.fixture(scope="module")
def mixed() -> AccuracyPredictor:
    """Of accuracies that grow with every choice and with the bits."""
    genomes = MIXED.sample_genomes(np.random.default_rng(0), 300)
    targets = 0.5 + 0.3 * (genomes / MIXED.n_choices).mean(axis=1)
    return AccuracyPredictor.fit(MIXED, MIXED.decode(genomes), targets, hidden=(32, 32), name="mixed")


@pytest.fixture(scope="module")
def plain() -> AccuracyPredictor:
    genomes = SPACE.sample_genomes(np.random.default_rng(0), 200)
    targets = 0.5 + 0.3 * (genomes / SPACE.n_choices).mean(axis=1)
    return AccuracyPredictor.fit(SPACE, SPACE.decode(genomes), targets, hidden=(32, 32), name="plain")


@pytest.mark.parametrize(("precision", "bits"), [("int8", 8), ("fp32", 32)])
def test_in_one_precision_all_slots_have_its_bits(mixed: AccuracyPredictor, precision: str, bits: int) -> None:
    objective = predicted_accuracy(mixed, SPACE, precision)
    genomes = SPACE.sample_genomes(np.random.default_rng(1), 50)
    networks = [MIXED.with_bits(a, [bits] * len(SPACE.layout(a))) for a in SPACE.decode(genomes)]
    np.testing.assert_array_equal(objective.scores(SPACE, genomes), mixed.predict(networks))
    assert objective.resolutions(SPACE) == SPACE.resolutions
    assert isinstance(objective, PredictedAccuracy)
    about = objective.about()
    assert about is not None
    assert about["space"] == "cifar-mbv3-mixed"


def test_int8_costs_what_the_predictor_says(mixed: AccuracyPredictor) -> None:
    genomes = SPACE.sample_genomes(np.random.default_rng(2), 50)
    int8, fp32 = (predicted_accuracy(mixed, SPACE, each).scores(SPACE, genomes) for each in ("int8", "fp32"))
    assert (int8 < fp32).all()


def test_in_mixed_precision_the_bits_count(mixed: AccuracyPredictor) -> None:
    genomes = MIXED.sample_genomes(np.random.default_rng(3), 50)
    scores = predicted_accuracy(mixed, MIXED, "mixed").scores(MIXED, genomes)
    np.testing.assert_array_equal(scores, mixed.predict(MIXED.decode(genomes)))


def test_a_predictor_of_fp32_gives_all_precisions_its_accuracy(plain: AccuracyPredictor) -> None:
    genomes = MIXED.sample_genomes(np.random.default_rng(4), 50)
    own = genomes[:, : len(SPACE.genes)]
    expected = plain.predict(SPACE.decode(own))
    np.testing.assert_array_equal(predicted_accuracy(plain, SPACE, "int8").scores(SPACE, own), expected)
    found = predicted_accuracy(plain, MIXED, "mixed").scores(MIXED, genomes)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_predictor_of_other_networks_is_refused(plain: AccuracyPredictor, mixed: AccuracyPredictor) -> None:
    other = get_space("ofa-resnet50")
    for predictor in (plain, mixed):
        for space, precision in ((other, "fp32"), (other, "int8"), (MixedSpace.of(other), "mixed")):
            with pytest.raises(UsageError, match="is for cifar-mbv3"):
                predicted_accuracy(predictor, space, precision)
