"""Patterns in networks that no one here made."""

from __future__ import annotations

import pytest
from support.referees import REFEREES

from ofa_profiler.models.formats import open_model
from ofa_profiler.models.inputs import feeds_for, parse_shapes
from ofa_profiler.models.rewriting.checking import LARGEST_DIFFERENCE, cases, difference
from ofa_profiler.models.rewriting.registry import patterns_for, rewritten

PLACES = {
    "ppocr-rec": {
        "hard-swish of single operators": 28,
        "scale and shift after a convolution": 28,
        "scale and shift before a convolution": 12,
    },
    "ppocr-cls": {"hard-swish of single operators": 18},
    "open-nsfw": {"scale and shift after a convolution": 53},
    "face-detection-full-range": {},
    "basic-pitch-tflite": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLACES)
def test_the_outputs_of_real_networks_stay(name, tmp_path):
    referee = REFEREES[name]
    model = open_model(referee.path)
    given = cases(model.inputs, feeds_for(model.inputs, parse_shapes(referee.shapes, model.inputs)))
    data = model.whole(given[0]).data
    for pattern in patterns_for(model.runtime):
        _, places = rewritten(model.runtime, data, [pattern])
        if pattern.name in PLACES[name]:
            assert places == PLACES[name][pattern.name]
    out, places = rewritten(model.runtime, data, patterns_for(model.runtime))
    assert bool(places) == bool(PLACES[name])
    path = tmp_path / f"out{referee.path.suffix}"
    path.write_bytes(out)
    other = open_model(path)
    assert difference((model.run(case), other.run(case)) for case in given) <= LARGEST_DIFFERENCE
