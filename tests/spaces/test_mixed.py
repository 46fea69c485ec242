"""Spaces of mixed precision: genomes, JSON, and where the precision of a network can change."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler import Architecture, get_space, space_names
from ofa_profiler.errors import UsageError
from ofa_profiler.spaces.mixed import MixedSpace
from ofa_profiler.spaces.sampling import leaning_genomes

spaces = st.sampled_from(space_names()).map(lambda name: get_space(f"{name}-mixed"))


@given(space=spaces, seed=st.integers(0, 2**32 - 1))
def test_genomes_and_json_there_and_back(space, seed):
    rng = np.random.default_rng(seed)
    genomes = np.vstack([space.sample_genomes(rng, 3), leaning_genomes(space, 3, rng)])
    architectures = space.decode(genomes)
    assert (space.encode(architectures) == genomes).all()
    for architecture in architectures:
        assert Architecture.from_json(json.loads(json.dumps(architecture.to_json()))) == architecture
        values = space.encode([architecture])[0]
        assert space.from_values([g.choices[i] for g, i in zip(space.genes, values, strict=True)]) == architecture
        assert list(space.precisions(architecture)) == [
            name for name, _ in space.plain.layout(space.plain_architecture(architecture))
        ]


@given(space=spaces, seed=st.integers(0, 2**32 - 1))
def test_the_edges_of_a_network_are_those_between_its_active_slots(space, seed):
    (genome,) = space.sample_genomes(np.random.default_rng(seed), 1)
    active = [i for i, activity in enumerate(space.activities) if activity.of(genome[np.newaxis])[0]]
    names = [space.slots[i].name for i in active]
    assert names == list(space.precisions(space.decode(genome[np.newaxis])[0]))
    wanted = {(None, active[0]), *pairwise(active), (active[-1], None)}

    def is_there(edge):
        ends = [end for end in (edge.before, edge.after) if end is not None]
        return all(end in active for end in ends) and not any(slot in active for slot in edge.between)

    assert {(edge.before, edge.after) for edge in space.edges if is_there(edge)} == wanted


@pytest.mark.parametrize("name", space_names())
def test_extremes_and_resolutions(name):
    space = get_space(f"{name}-mixed")
    assert set(space.largest.bits) == {32}
    assert set(space.smallest.bits) == {8}
    assert space.plain_architecture(space.largest) == get_space(name).largest
    first = space.valid_resolutions[0]
    assert space.at(first) == MixedSpace.of(get_space(name).at(first))
    shapes = space.at(first).boundary_shapes
    layout = space.plain.layout(replace(space.plain.smallest, resolution=first))
    assert {op.output_shape for _, op in layout} <= set(shapes)


def test_wrong_bits_are_refused_in_words():
    space = get_space("cifar-mbv3-mixed")
    good = space.smallest
    for bits, words in [((8,), "slots, but 1 bits"), ((*good.bits[1:], 16), "16 is not one of"), ((), "but 0 bits")]:
        with pytest.raises(UsageError, match=words):
            space.encode([replace(good, bits=bits)])
    with pytest.raises(UsageError, match="belongs to space cifar-mbv3, not to cifar-mbv3-mixed"):
        space.encode([space.plain_architecture(good)])
    data = {**good.to_json(), "bits": [8.5] * len(good.bits)}
    with pytest.raises(UsageError, match="bits must be an integer"):
        Architecture.from_json(data)
    with pytest.raises(UsageError, match="unknown search space 'none'"):
        get_space("none-mixed")


def test_an_architecture_without_bits_has_no_bits_in_json():
    plain = get_space("cifar-mbv3")
    assert "bits" not in plain.smallest.to_json()
    with pytest.raises(UsageError, match="bits"):
        plain.validate(replace(plain.smallest, bits=(8,)))
