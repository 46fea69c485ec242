"""Spaces by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.spaces import SmallSpace, registered

from ofa_profiler import Architecture, LatencyTable, get_space, space_names
from ofa_profiler.errors import UsageError
from ofa_profiler.spaces import register_space
from ofa_profiler.tables.row import Row
from ofa_search import AccuracyPredictor, Macs, search


def test_a_name_is_taken_once():
    space = get_space("cifar-mbv3")
    with pytest.raises(UsageError, match="search space 'cifar-mbv3' is already registered"):
        register_space(SmallSpace(name="cifar-mbv3"))
    assert get_space("cifar-mbv3") is space
    assert Architecture.from_json(space.largest.to_json()) == space.largest


def test_an_architecture_of_a_registered_space_is_read_and_checked():
    space = SmallSpace(name="mine")
    document = space.largest.to_json()
    with pytest.raises(UsageError, match=r"unknown search space 'mine'; choose from ofa-mbv3-w1\.0, "):
        Architecture.from_json(document)
    with registered(space):
        assert space_names()[-1] == "mine"
        assert get_space("mine") is space
        assert Architecture.from_json(document) == space.largest
        document["stages"][0]["kernel_sizes"][0] = 9
        with pytest.raises(UsageError, match=r"stage 0: kernel size 9 is not one of \[3, 5\]"):
            Architecture.from_json(document)
    assert "mine" not in space_names()


@pytest.mark.parametrize(
    "space",
    [
        SmallSpace(name="without-resolution"),
        SmallSpace(name="stem-first", resolutions=(4, 8), valid_resolutions=(2, 4, 8), stem=True, width_mults=(0.5, 1)),
        SmallSpace(
            name="resolution-last",
            resolutions=(4, 8),
            valid_resolutions=(2, 4, 8),
            kernel_sizes=(3,),
            places=("stages", "stem", "resolution"),
        ),
    ],
    ids=lambda space: space.name,
)
def test_tables_predictors_and_searches_take_it(space, tmp_path):
    with registered(space):
        rows = [
            Row.from_op(op, batch=1, precision="fp32", samples_ms=[op.macs / 1e3 + 1] * 3) for op in space.unique_ops()
        ]
        LatencyTable("board", tuple(rows)).save(tmp_path / "board.csv")
        table = LatencyTable.load(tmp_path / "board.csv")
        assert table.spaces == (space.name,)
        assert table.covers(space)

        architectures = space.decode(space.sample_genomes(np.random.default_rng(0), 60))
        expected = [sum(op.macs / 1e3 + 1 for op in space.ops(architecture)) for architecture in architectures]
        np.testing.assert_allclose(table.predict_ms(architectures), expected)

        accuracies = [0.5 + 0.1 * np.mean(stages_of(architecture)) / 5 for architecture in architectures]
        predictor = AccuracyPredictor.fit(space, architectures, accuracies, hidden=(16,))
        again = AccuracyPredictor.load(predictor.save(tmp_path / "predictor.safetensors"))
        np.testing.assert_array_equal(again.predict(architectures), predictor.predict(architectures))
        assert np.corrcoef(again.predict(architectures), accuracies)[0, 1] > 0.9

        for objective in (again, Macs()):
            result = search(space, [(table, float(np.median(expected)))], objective)
            space.validate(result.architecture)
            assert result.latency_ms["board"] <= np.median(expected)
            document = json.loads(json.dumps(result.architecture.to_json()))
            assert Architecture.from_json(document) == result.architecture


def stages_of(architecture: Architecture) -> list[float]:
    """The choices of all blocks."""
    return [v for stage in architecture.stages for v in (*stage.kernel_sizes, *stage.expand_ratios)]


def test_a_predictor_of_images_is_not_for_a_space_without_a_resolution(tmp_path):
    images = SmallSpace(name="images", resolutions=(4, 8), valid_resolutions=(4, 8))
    words = SmallSpace(name="words")
    rng = np.random.default_rng(0)
    with registered(images), registered(words):
        for one, other in ((images, words), (words, images)):
            architectures = one.decode(one.sample_genomes(rng, 20))
            predictor = AccuracyPredictor.fit(one, architectures, rng.random(20), hidden=(4,))
            with pytest.raises(UsageError, match=f"is for {one.name}; {other.name} has other resolutions"):
                predictor.predict([other.largest])
