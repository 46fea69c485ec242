"""Every engine finds the best network of spaces with hardly a choice."""

from __future__ import annotations

import numpy as np
import pytest
from support.problems import constraint
from support.spaces import registered

from ofa_profiler.spaces.language import choice, conv, global_pool, linear, repeat, sequence, space
from ofa_search import AccuracyPredictor
from ofa_search.searching.engines import engine_names, get_engine
from ofa_search.searching.objectives import PredictedAccuracy
from ofa_search.searching.problem import Problem

TINY = {
    "only depth and resolution": lambda: (repeat(lambda _: conv(8, 3), choice("depth", [1, 2, 3])), [8, 16]),
    "one network": lambda: (conv(8, 3), [8]),
}


@pytest.mark.parametrize("name", engine_names())
@pytest.mark.parametrize("which", TINY)
def test_the_best_of_a_tiny_space(name: str, which: str) -> None:
    first, resolutions = TINY[which]()
    made = space(sequence(first, global_pool(), linear()), resolutions=resolutions, classes=3).named("tiny:SPACE")
    with registered(made):
        drawn = [made.sample(np.random.default_rng(seed)) for seed in range(30)]
        predictor = AccuracyPredictor.fit(made, drawn, np.linspace(0.5, 0.6, 30), hidden=(4,))
        objective = PredictedAccuracy(predictor)
        every = made.encode(sorted(set(drawn), key=str))
        asked = Problem(made, objective, (constraint(made, 1.0, "params"),), every[0])
        found = get_engine(name).search(asked, np.random.default_rng(0))
        assert found.score == pytest.approx(objective.scores(made, every).max())
